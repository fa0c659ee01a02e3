"""The smallest kernel that tells whether KVM runs the code of real ones: it enters 64-bit mode and says a byte.

Firmware alone proves little. A KVM that emulates what runs privileged (one inside another virtual machine, for
instance) starts the BIOS and a boot loader, and stops at the first instruction that it does not know. The kernel's
decompressor, the first code of Linux, does what this does: it switches on paging and 64-bit mode, and shifts with BMI2
where the processor has it.
"""

from __future__ import annotations

SAID = b"K"
PORT = 0xE9
"""Where it says so: the port of QEMU's and Bochs' debug console, which SeaBIOS does not write to."""

# A Multiboot image (Multiboot specification 0.6.96, 3.1), entered in 32-bit mode without paging at 1 MiB, where it also
# lies; its page tables are at 2 MiB. Opcodes: Intel SDM, volume 2; the way into 64-bit mode: volume 3, 10.8.5.
_LISTING = """
eb22 6690              #       jmp entry; two bytes of filling
02b0ad1b 00000100      #       Multiboot's magic; flags: the addresses below are valid
fe4f51e4               #       the checksum: all three add up to 0
04001000 00001000      #       where this header and the image are loaded
00000000 00000000      #       the whole file, and nothing after it
00001000               #       where it begins
b801000080 0fa2        # entry: mov eax, 0x80000001; cpuid
f7c200000020           #       test edx, 1 << 29: is there a 64-bit mode?
0f8485000000           #       jz say
fc bf00002000          #       cld; mov edi, 0x200000
31c0 b9000c0000 f3ab   #       xor eax, eax; mov ecx, 3 * 1024; rep stosd: three empty tables
c7050000200003102000   #       the first names the second: present, writable
c7050010200003202000   #       the second the third
c7050020200083000000   #       the third two pages of 2 MiB, at 0
c7050820200083002000   #       and at 2 MiB
b800002000 0f22d8      #       mov eax, 0x200000; mov cr3, eax
0f20e0 83c820 0f22e0   #       CR4.PAE
b9800000c0 0f32        #       mov ecx, IA32_EFER; rdmsr
0d00010000 0f30        #       EFER.LME; wrmsr
0f20c0 0d00000080      #       mov eax, cr0; or eax, CR0.PG
0f22c0                 #       mov cr0, eax
0f0115d8001000         #       lgdt [0x1000d8]
eaa60010000800         #       jmp 8:long
b807000000 31c9 0fa2   # long: mov eax, 7; xor ecx, ecx; cpuid
f7c300010000 7405      #       test ebx, 1 << 8; jz say: is there BMI2?
c4e269f7c0             #       shlx eax, eax, edx
b04b e6e9              # say:  mov al, 'K'; out 0xe9, al
f4 ebfd                # stop: hlt; jmp stop
8d74260090             #       filling
0000000000000000       #       descriptor 0
00000000009b2000       #       descriptor 8: code of 64 bits
0f00 c8001000          #       size less one and address of the two
6690
"""
KERNEL = bytes.fromhex("".join(line.partition("#")[0] for line in _LISTING.splitlines()))
