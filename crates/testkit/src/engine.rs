//! What tests need of the machine, and the Debian packages that bring it.

use std::fmt;

use crate::locate;

/// Something that tests start and that a package of the system provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A Postgres server.
    Postgres,
    /// A browser and its driver.
    Chromium,
    /// npm, which installs the pinned Node and the clients that run on it.
    Npm,
    /// A Python that can make virtual environments.
    Python,
    /// A certificate authority and a DNS server.
    Pebble,
    /// The maker of btrfs file systems.
    Btrfs,
    /// A kernel in user space.
    Gvisor,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Postgres, Self::Chromium, Self::Npm, Self::Python, Self::Pebble, Self::Btrfs, Self::Gvisor];

    /// What it is used for, for a person who wonders.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Postgres => "the control plane runs on it past one machine",
            Self::Chromium => "sites are looked at in a real browser",
            Self::Npm => "it installs the MCP clients that the conformance tests drive",
            Self::Python => "the Python MCP client runs in a virtual environment",
            Self::Btrfs => "workspaces are kept on a file system of it",
            Self::Gvisor => "sandboxes are kept from their machine by it",
            Self::Pebble => "it issues certificates by ACME, and answers for domains that tests make up",
        }
    }

    /// The packages, by Debian's names.
    #[must_use]
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgresql"],
            Self::Chromium => &["chromium", "chromium-driver", "fonts-liberation"],
            Self::Npm => &["npm"],
            Self::Python => &["python3-venv"],
            Self::Pebble => &["pebble"],
            Self::Btrfs => &["btrfs-progs"],
            Self::Gvisor => &["runsc"],
        }
    }

    /// Whether the machine has it.
    #[must_use]
    pub fn is_present(self) -> bool {
        match self {
            Self::Postgres => locate::postgres_directory().is_some(),
            Self::Chromium => locate::browser().is_some() && locate::browser_driver().is_some(),
            Self::Npm => locate::program(&["npm"]).is_some(),
            Self::Python => locate::python().is_some(),
            Self::Btrfs => {
                locate::program(&["mkfs.btrfs", "/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"]).is_some()
            }
            Self::Gvisor => locate::program(&["runsc"]).is_some(),
            Self::Pebble => {
                ["pebble", "pebble-challtestsrv"].iter().all(|name| locate::program(&[name]).is_some())
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Chromium => "chromium",
            Self::Npm => "npm",
            Self::Python => "python",
            Self::Pebble => "pebble",
            Self::Btrfs => "btrfs",
            Self::Gvisor => "gvisor",
        })
    }
}
