#!/usr/bin/env bash
# Builds what is shipped, target/shipped/tollgate: a profile-guided build by rustc's own means. `make release` runs it.
#
#   deploy/release.sh             # trains for about a minute, and leaves the profile beside the binary
#   deploy/release.sh PROFILE     # with the profile of an earlier run: the same commit gives the same bytes again
#
# A first binary counts which way its code goes while benches/peers/train.rs calls it. The second is laid out by these
# counts. Without a `llvm-profdata` of rustc's LLVM the build is plain, and `tollgate --version` says so.
set -euo pipefail
# The tools read both: a path that is relative is meant from where this was called.
given=${1:+$(realpath "$1")}
target=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "$0")/../target}")
cd "$(dirname "$0")/.."

said() { rustc -vV | sed -n "s/^$1: //p"; }
host=$(said host)
llvm=$(said 'LLVM version' | cut -d. -f1)
shipped=$target/shipped
counts=$target/counts

# With --target the flags reach the binary and its crates, but neither build scripts nor macros.
build() { RUSTFLAGS="${RUSTFLAGS:-} $*" cargo build --release --locked --bin tollgate --target "$host"; }

# Prints where the tool is that reads the counts.
find_profdata() {
    local own
    own=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
    command -v "$own" "llvm-profdata-$llvm" | head -n 1 | grep .
}

# Into the file $1.
train() {
    rm -rf "$counts"
    build -Cprofile-generate="$counts"
    BENCH_BINARY=$target/$host/release/tollgate cargo bench --locked --bench peers -- train
    "$profdata" merge --output="$1" "$counts"/*.profraw
    rm -rf "$counts"
}

mkdir -p "$shipped"
profile=$given
if [ -z "$profile" ] && profdata=$(find_profdata); then
    profile=$shipped/trained
    train "$profile"
fi

if [ -n "$profile" ]; then
    # cargo does not look into a profile: one of another name makes it build all crates again.
    named=$shipped/$(sha256sum "$profile" | cut -c1-16).profdata
    [ "$profile" -ef "$named" ] || cp "$profile" "$named"
    find "$shipped" -type f ! -path "$named" -delete
    build -Cprofile-use="$named"
else
    echo "release: no llvm-profdata of LLVM $llvm, so this build is plain. For one that is guided by a profile:" >&2
    echo "release:   rustup component add llvm-tools     # or: apt-get install llvm-$llvm" >&2
    find "$shipped" -type f -delete
    build
fi
cp "$target/$host/release/tollgate" "$shipped/tollgate"
"$shipped/tollgate" --version
