#!/bin/bash
# dib-lint: disable=sete setu setpipefail dibdebugtrace
# Sourced by dracut: there is no root file system, and that is right. The variables are dracut's.

# shellcheck disable=SC2034
root=deploy-ramdisk
# shellcheck disable=SC2034
rootok=1
