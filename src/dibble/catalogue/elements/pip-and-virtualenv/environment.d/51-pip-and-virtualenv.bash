# shellcheck shell=bash
case ${DISTRO_NAME:-} in
    centos | rhel) export DIB_INSTALLTYPE_pip_and_virtualenv=package ;;
esac
export DIB_PYTHON_PIP="${DIB_PYTHON:-python3} -m pip"
export DIB_PYTHON_VIRTUALENV="${DIB_PYTHON:-python3} -m venv"
