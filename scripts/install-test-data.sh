#!/usr/bin/env bash
# Debian packages that some tests use; without them those tests are skipped and say so.
set -euo pipefail
packages=(dataset-fashion-mnist postgresql)
if ! command -v apt-get >/dev/null; then
  echo "no apt-get here: tests that need ${packages[*]} will be skipped"
elif dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  echo "${packages[*]}: installed already"
elif [ "$(id -u)" != 0 ]; then
  echo "not root: tests that need ${packages[*]} will be skipped (sudo $0 installs it)"
else
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
