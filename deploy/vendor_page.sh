#!/usr/bin/env bash
# Fetch anew what the page bundles, in the pinned version, and check that it is what is checked in. Another version:
# change it here, run with --update, look at the page, and commit what has changed.
set -euo pipefail
version=5.2.1
cd "$(dirname "${BASH_SOURCE[0]}")/../exporters/page/vendor"
vendor=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "lightweight-charts@$version" >/dev/null
tar -xzf "lightweight-charts-$version.tgz"
cp package/dist/lightweight-charts.standalone.production.mjs lightweight-charts.mjs
cp package/LICENSE LICENSE.txt
if [[ ${1:-} == --update ]]; then
  sha256sum LICENSE.txt lightweight-charts.mjs >"$vendor/SHA256SUMS"
else
  sha256sum --quiet --check "$vendor/SHA256SUMS"
fi
cp LICENSE.txt lightweight-charts.mjs "$vendor/"
echo "lightweight-charts $version is in place"
