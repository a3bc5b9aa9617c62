//! The jail's own `/etc`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::mounts::{READ_ONLY, show_new};

const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin
agent:x:1000:1000:agent:/workspace:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n";

const HOSTS: &str = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n";

const NSSWITCH: &str =
    "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";

/// What is the host's, where it has it: nothing in it is about the host's people or services.
const OF_THE_HOST: [&str; 14] = [
    "alternatives",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "mime.types",
    "pki/ca-trust",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "localtime",
    "magic",
];

/// Where that is.
pub fn of_the_host() -> impl Iterator<Item = PathBuf> {
    OF_THE_HOST.iter().map(|name| Path::new("/etc").join(name))
}

/// Makes it in the directory `etc`.
///
/// # Errors
/// Of the file system.
pub fn make() -> io::Result<()> {
    let directory = Path::new("etc");
    for (name, text) in [
        ("passwd", PASSWD),
        ("group", GROUP),
        ("hosts", HOSTS),
        ("nsswitch.conf", NSSWITCH),
        ("hostname", "sandbox\n"),
        // Names are looked up by whoever lets requests out, nowhere else.
        ("resolv.conf", ""),
    ] {
        fs::write(directory.join(name), text)?;
    }
    symlink("/proc/self/mounts", directory.join("mtab"))?;
    symlink("../usr/lib/os-release", directory.join("os-release"))?;
    for (source, name) in of_the_host().zip(OF_THE_HOST) {
        let target = directory.join(name);
        let Ok(real) = fs::canonicalize(&source) else {
            continue;
        };
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        show_new(&real, &target, READ_ONLY).map_err(|error| error.source)?;
    }
    Ok(())
}
