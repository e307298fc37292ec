# Shared by the commands here: telling, packages, building. Sourced, from the top of the repository.

export RUST_BACKTRACE=${RUST_BACKTRACE:-0}
ARCH=${LONGSHORE_ARCH:-$(uname -m)}
TARGET_DIR=${CARGO_TARGET_DIR:-target}
STARTED=$(date +%s)

say() { printf '\033[1m[%4ds] %s\033[0m\n' $(($(date +%s) - STARTED)) "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_packages COMMAND-OR-FILE=PACKAGE...: installs the packages whose command or file is missing.
need_packages() {
  local missing=() pair
  for pair in "$@"; do
    local probe=${pair%%=*} package=${pair#*=}
    case $probe in
      /*) compgen -G "$probe" >/dev/null || missing+=("$package") ;;
      *) command -v "$probe" >/dev/null || missing+=("$package") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || fail "missing: ${missing[*]} (this is not a Debian-like machine: install them by its own means)"
  local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  say "installing ${missing[*]}"
  $sudo apt-get update -qq >/dev/null || true
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}"
}

# need_qemu: QEMU 9.0 or newer where there is one. Before 8.1 its emulator may run stale code after a guest with two CPUs has
# patched its own kernel: the guest panics, now and then. Before 9.0 its CPUs have no x2APIC (app/vm/src/arguments.rs says what
# that is for). Debian 12 has a newer one in its backports.
need_qemu() {
  local program=qemu-system-x86_64 oldest=9.0
  new_enough() { command -v $program >/dev/null && [ "$(printf '%s\n' $oldest "$($program --version | sed -nE '1s/.*version ([0-9.]+).*/\1/p')" | sort -V | head -1)" = $oldest ]; }
  need_packages $program=qemu-system-x86
  new_enough && return
  if command -v apt-get >/dev/null; then
    local sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    local suite; suite="$(. /etc/os-release; echo "${VERSION_CODENAME:-}")"
    local lists; lists=$(mktemp -d)
    mkdir -p "$lists/sources" "$lists/state/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite-backports main" >"$lists/sources/backports.list"
    say "looking for QEMU $oldest or newer in $suite-backports"
    # With the machine's own sources, and lists of its own: nothing of the machine's configuration changes.
    cp -r /etc/apt/sources.list /etc/apt/sources.list.d/. "$lists/sources/" 2>/dev/null || true
    [ ! -f "$lists/sources/sources.list" ] || mv "$lists/sources/sources.list" "$lists/sources/machine.list"
    local apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$lists/sources" -o Dir::State::Lists="$lists/state")
    if [ -n "$suite" ] && $sudo "${apt[@]}" update >/dev/null 2>&1; then
      $sudo env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends -t "$suite-backports" qemu-system-x86 >/dev/null 2>&1 || true
    fi
    $sudo rm -rf "$lists"
  fi
  new_enough || say "this QEMU is older than $oldest: without KVM the guest's kernel may panic or hang now and then"
}

# The packages that building and running take.
need_build_packages() {
  need_packages gcc=gcc pkg-config=pkg-config protoc=protobuf-compiler /usr/include/google/protobuf/empty.proto=libprotobuf-dev \
    "/usr/include/seccomp.h=libseccomp-dev" "/usr/include/cap-ng.h=libcap-ng-dev" mkfs.erofs=erofs-utils \
    /usr/share/doc/ca-certificates=ca-certificates curl=curl
  need_qemu
  if ! command -v docker >/dev/null; then
    local cli=docker.io
    apt-cache show docker-cli >/dev/null 2>&1 && cli=docker-cli
    need_packages docker=$cli
  fi
  command -v cargo >/dev/null || fail "Rust is missing: install rustup (Debian: apt-get install rustup), then: rustup toolchain install 1.95"
}

# The packages that the window takes; on other systems than Linux its web view is the system's own.
need_desktop_packages() {
  need_packages "/usr/lib/*/pkgconfig/webkit2gtk-4.1.pc=libwebkit2gtk-4.1-dev" "/usr/lib/*/libayatana-appindicator3.so.1=libayatana-appindicator3-1"
}

# The packages that test images and peers take.
need_test_packages() {
  need_packages mmdebstrap=mmdebstrap docker-registry=docker-registry skopeo=skopeo /bin/busybox=busybox-static e2fsck=e2fsprogs python3=python3 /usr/lib/python3*/ensurepip/__init__.py=python3-venv
}

# build_host [PACKAGE...]: the programs of the host, what makes the guest image, and more packages.
build_host() {
  say "building the host programs"
  cargo build --release --quiet -p longshore -p longshore-host -p longshore-vm -p longshore-file-share -p longshore-guest-image "${@/#/-p}"
}

# build_guest_image: by the program that was built before.
build_guest_image() {
  say "building the guest image ($ARCH)"
  "$TARGET_DIR/release/longshore-guest-image" --arch "$ARCH" --build --out "$TARGET_DIR/guest-image/$ARCH"
}

# debian_mirror: the mirror of the machine's own apt configuration.
debian_mirror() {
  awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null | grep . ||
    awk '$1 == "deb" && / main/ {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | grep . ||
    fail "no Debian mirror found in this machine's apt configuration"
}

# need_rust_src: the standard library's source, for building it for other systems; from whichever Debian suite has this compiler's version.
need_rust_src() {
  local sysroot version suite root=$TARGET_DIR/tools/rust-src
  sysroot=$(rustc --print sysroot)
  version=$(rustc --version | cut -d' ' -f2)
  [ ! -e "$sysroot/lib/rustlib/src/rust/library/std/Cargo.toml" ] || return 0
  say "fetching the standard library's source ($version)"
  rm -rf "$root"; mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
  root=$(cd "$root" && pwd)
  for suite in trixie-backports sid trixie; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main" > "$root/sources.list"
    local apt=(-o "Dir::State::Lists=$root/lists" -o "Dir::Etc::SourceList=$root/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::Cache=$root/cache" -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=)
    apt-get "${apt[@]}" update -qq >/dev/null 2>&1 || continue
    local candidate
    candidate=$(apt-cache "${apt[@]}" madison rust-src | awk -F'|' '{gsub(/ /, "", $2); print $2}' | grep -m1 "^$version" || true)
    [ -n "$candidate" ] || continue
    (cd "$root" && apt-get "${apt[@]}" download -qq "rust-src=$candidate" && dpkg-deb -x rust-src_*.deb unpacked)
    mkdir -p "$sysroot/lib/rustlib/src"
    rm -rf "$sysroot/lib/rustlib/src/rust.new" && mkdir "$sysroot/lib/rustlib/src/rust.new"
    cp -rL "$root"/unpacked/usr/src/rustc-*/library "$sysroot/lib/rustlib/src/rust.new/"
    mv "$sysroot/lib/rustlib/src/rust.new" "$sysroot/lib/rustlib/src/rust"
    rm -rf "$root"
    return
  done
  fail "no Debian suite has rust-src $version"
}

# debian_root SUITE OUT.tar PACKAGE...: the packages and what they depend on, unpacked but not configured.
debian_root() {
  local suite=$1 out=$2; shift 2
  local packages; packages=$(echo "base-files $*" | tr " " ,)
  debian_bootstrap "$suite" "$out" --variant=extract --include="$packages"
}

# debian_bootstrap SUITE OUT.tar OPTION...: what mmdebstrap makes with these options.
debian_bootstrap() {
  local suite=$1 out=$2; shift 2
  mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' "$@" "$suite" "$out" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main"
}
