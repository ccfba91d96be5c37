#!/usr/bin/env bash
# Makes a package: `package.sh deb|rpm amd64|arm64 [ssds|ssds-jetson]`.
#
# Builds the program (scripts/cross.sh; WAY=quick|release, default release), gathers what belongs to it in target/package/stage, lets
# cargo-deb or cargo-generate-rpm pack it, and writes the bill of materials (CycloneDX 1.5, JSON) beside it. Settings from the environment:
#   PACKAGE_VERSION  version of the package; default Cargo.toml's
#   PACKAGE_DIR      folder for the results; default target/package
#   PROGRAM          a built program to pack, instead of building one
#   FEATURES         features beside the default ones
#   SBOM=no          leave the bill of materials out
#   COMPRESSION      of a .deb: xz (default), or gz at its fastest, for a board that unpacks slowly
# Prints the package's path last. Exit: 0 made, 64 usage, 69 a tool is missing, else the tool's.
set -euo pipefail

fail() { code=$1; shift; echo "package: $*" >&2; exit "$code"; }
[ $# = 2 ] || [ $# = 3 ] || fail 64 "usage: package.sh deb|rpm amd64|arm64 [ssds|ssds-jetson]"
kind=$1
case $2 in
    amd64 | x86_64) debian=amd64 arch=x86_64 ;;
    arm64 | aarch64) debian=arm64 arch=aarch64 ;;
    *) fail 64 "architecture must be amd64 or arm64, got '$2'" ;;
esac
name=${3:-ssds}
case $kind in deb | rpm) ;; *) fail 64 "kind must be deb or rpm, got '$kind'" ;; esac
case $name in ssds | ssds-jetson) ;; *) fail 64 "package must be ssds or ssds-jetson, got '$name'" ;; esac
root=$(cd "$(dirname "$0")/.." && pwd)
compression=${COMPRESSION:-xz}
case $compression in xz | gz) ;; *) fail 64 "COMPRESSION must be xz or gz, got '$compression'" ;; esac
cd "$root"
cargo=${CARGO:-cargo}
target=$arch-unknown-linux-gnu
version=${PACKAGE_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
out=${PACKAGE_DIR:-target/package}
mkdir -p "$out"
export PATH=$root/target/tools/bin:$PATH

tool() { # NAME VERSION [CARGO-ARGUMENT]
    command -v "cargo-$1" > /dev/null && return
    echo "package: installing cargo-$1 $2 below target/tools"
    # A tool of packing is run a few times: little optimisation, soon compiled.
    env -u RUSTC -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 "$cargo" install ${3:-} --quiet --locked --root target/tools "cargo-$1" --version "$2" || fail 69 "cargo-$1 $2 cannot be installed"
}

# The packer is compiled while the program's compiler leaves a core idle.
case $kind in
    deb) tool deb 3.8.0 --debug ;; # its compressor is optimised all the same
    rpm) tool generate-rpm 0.21.1 ;;
esac &
packer=$!

# -- what goes in ---------------------------------------------------------------------------------------------------------------------
program=${PROGRAM:-}
if [ -z "$program" ]; then
    scripts/cross.sh --arch "$arch" --way "${WAY:-release}" ${FEATURES:+--features "$FEATURES"}
    program=${CARGO_TARGET_DIR:-target}/cross/$target/release/ssds
fi
[ -f "$program" ] || fail 66 "no program $program"
glibc=$(scripts/glibc-need.sh "$program" | sed -n 's/.*needs glibc //p')
scripts/fetch-onnxruntime.sh --arch "$arch" "target/package/onnxruntime-$arch"

stage=target/package/stage
rm -rf "$stage"
mkdir -p $stage/{bin,lib,doc,man,completions,units,schema,models,config,dropins}
install -m 0755 "$program" $stage/bin/ssds
install -m 0644 models/*.onnx models/*.toml $stage/models/
cp packaging/man/*.1 $stage/man/
gzip -9n $stage/man/*.1
cp packaging/completions/* $stage/completions/
install -m 0644 config/schema/*.json $stage/schema/
install -m 0644 config/ssds.toml $stage/config/
install -m 0644 systemd/ssds.service systemd/ssds.sysusers systemd/ssds.tmpfiles systemd/genicam.conf systemd/jetson.conf $stage/units/
install -m 0644 README.md config/mqtt.md docs/deploy.md $stage/doc/
install -m 0644 config/README.md $stage/doc/settings.md
install -m 0644 models/README.md $stage/doc/model.md
gzip -9nc CHANGELOG.md > $stage/doc/CHANGELOG.md.gz
{
    printf '%s (%s) unstable; urgency=medium\n\n  * What users notice: /usr/share/doc/%s/CHANGELOG.md.gz.\n\n' "$name" "$version" "$name"
    printf ' -- %s  %s\n' "$(sed -n 's/^maintainer = "\(.*\)"/\1/p' Cargo.toml)" "$(git log -1 --format=%cD 2> /dev/null || date -R)"
} | gzip -9n > $stage/doc/changelog.gz
if [ "$name" = ssds ]; then
    install -D -m 0644 packaging/lintian-overrides $stage/lintian/ssds
    install -m 0644 target/package/onnxruntime-$arch/libonnxruntime.so.* $stage/lib/
    install -m 0644 target/package/onnxruntime-$arch/LICENSE.onnxruntime $stage/doc/
    gzip -9nc target/package/onnxruntime-$arch/ThirdPartyNotices.onnxruntime.txt > $stage/doc/ThirdPartyNotices.onnxruntime.txt.gz
fi

# -- pack -----------------------------------------------------------------------------------------------------------------------------
wait $packer
if [ "$kind" = deb ]; then
    package=$out/${name}_${version}_$debian.deb
    variant=()
    [ "$name" = ssds ] || variant=(--variant jetson)
    level=
    if [ $compression = gz ]; then variant+=(--fast --compress-type gz --compress-system) level=1; fi
    "$cargo" deb --quiet --locked --no-build --no-strip --target "$target" "${variant[@]}" --deb-version "$version" --output "$package"
    # The manifest states the release way's glibc; a quick build needs what it needs.
    if dpkg --compare-versions "$glibc" gt 2.31; then
        work=$(mktemp -d)
        dpkg-deb -R "$package" "$work/tree"
        sed -i "s/libc6 (>= 2.31)/libc6 (>= $glibc)/" "$work/tree/DEBIAN/control"
        dpkg-deb -Z${compression/gz/gzip} ${level:+-z$level} --root-owner-group -b "$work/tree" "$package" > /dev/null
        rm -rf "$work"
    fi
else
    package=$out/$name-${version//-/_}-1.$arch.rpm
    variant=()
    [ "$name" = ssds ] || variant=(--variant jetson)
    "$cargo" generate-rpm --auto-req disabled --arch "$arch" "${variant[@]}" -s "version = \"${version//-/_}\"" -s "requires = { systemd = \"*\", \"libstdc++\" = \"*\", glibc = \">= ${glibc}\" }" --output "$package"
fi

# -- bill of materials ------------------------------------------------------------------------------------------------------------------
if [ "${SBOM:-yes}" != no ]; then
    tool cyclonedx 0.5.9
    sbom=${package%.*}.cdx.json
    "$cargo" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --no-default-features --features "daemon${FEATURES:+,$FEATURES}" \
        --override-filename ssds.cdx
    mv ssds.cdx.json "$sbom"
    # What is in the package and no crate: the networks, and the runtime's library.
    python3 - "$sbom" "$stage" <<'PY'
import hashlib, json, pathlib, sys
sbom, stage = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
bill = json.loads(sbom.read_text())
def component(path, kind, name, version, **more):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    ref = f"file:{path.name}"
    return {"type": kind, "bom-ref": ref, "name": name, "version": version, "hashes": [{"alg": "SHA-256", "content": digest}], **more}
release = bill["metadata"]["component"]["version"]
added = [component(network, "machine-learning-model", network.name, release) for network in sorted((stage / "models").glob("*.onnx"))]
for library in (stage / "lib").iterdir():
    version = library.name.removeprefix("libonnxruntime.so.")
    added.append(component(library, "library", "onnxruntime", version, purl=f"pkg:pypi/onnxruntime@{version}", licenses=[{"license": {"id": "MIT"}}]))
bill.setdefault("components", []).extend(added)
root = bill["metadata"]["component"]["bom-ref"]
for entry in bill.get("dependencies", []):
    if entry["ref"] == root:
        entry.setdefault("dependsOn", []).extend(c["bom-ref"] for c in added)
sbom.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
PY
    echo "$sbom: $(grep -c '"bom-ref"' "$sbom") entries"
fi
echo "$package"
