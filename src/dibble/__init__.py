"""dibble builds Linux disk, cloud and container images: rootless, cached, reproducible."""

__version__ = "0.1.0"
