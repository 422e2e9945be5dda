//! Compiles the C libraries that are measured next to ours, those that this machine has the headers and libraries of.

use std::path::Path;

/// A header, the macro that `peers.c` asks for and Rust's `cfg`, and the library.
const PEERS: [(&str, &str, &str); 2] =
    [("intel-ipsec-mb.h", "ipsec_mb", "IPSec_MB"), ("openssl/evp.h", "openssl", "crypto")];

fn main() {
    println!("cargo::rerun-if-changed=src/peers.c");
    let mut build = cc::Build::new();
    build.file("src/peers.c").opt_level(2);
    let mut found = Vec::new();
    for (header, name, library) in PEERS {
        let path = Path::new("/usr/include").join(header);
        println!("cargo::rustc-check-cfg=cfg({name})");
        println!("cargo::rerun-if-changed={}", path.display());
        if path.exists() {
            println!("cargo::rustc-cfg={name}");
            build.define(name, None);
            found.push(library);
        }
    }
    if !found.is_empty() {
        build.compile("peers");
    }
    for library in found {
        println!("cargo::rustc-link-lib={library}");
    }
}
