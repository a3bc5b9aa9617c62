//! Ready sets of rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A ready set of access rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// The owner of a row reads and writes it, nobody else.
    Private,
    /// Everybody reads; the owner of a row writes it.
    PublicRead,
    /// Everybody reads; admins write.
    AdminWrite,
    /// Admins read and write, nobody else.
    AdminOnly,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Preset; 4] = [Preset::Private, Preset::PublicRead, Preset::AdminWrite, Preset::AdminOnly];

    /// Whether rows have an owner under this preset.
    pub(crate) const fn has_owner(self) -> bool {
        matches!(self, Preset::Private | Preset::PublicRead)
    }

    /// The name in a manifest.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Preset::Private => "private",
            Preset::PublicRead => "public_read",
            Preset::AdminWrite => "admin_write",
            Preset::AdminOnly => "admin_only",
        }
    }
}

/// The presets of CloudBase (<https://docs.cloudbase.net/rule/introduce>), by their names there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CloudBase {
    /// Everybody reads; the owner of a row writes it, whatever the name says.
    ReadOnly,
    /// The owner of a row reads and writes it.
    Private,
    /// Everybody reads; admins write.
    AdminWrite,
    /// Admins read and write.
    AdminOnly,
}

impl CloudBase {
    /// Every one.
    pub(crate) const ALL: [CloudBase; 4] =
        [CloudBase::ReadOnly, CloudBase::Private, CloudBase::AdminWrite, CloudBase::AdminOnly];

    /// The name in a manifest.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            CloudBase::ReadOnly => "READONLY",
            CloudBase::Private => "PRIVATE",
            CloudBase::AdminWrite => "ADMINWRITE",
            CloudBase::AdminOnly => "ADMINONLY",
        }
    }

    /// Our preset of the same meaning.
    pub(crate) const fn preset(self) -> Preset {
        match self {
            CloudBase::ReadOnly => Preset::PublicRead,
            CloudBase::Private => Preset::Private,
            CloudBase::AdminWrite => Preset::AdminWrite,
            CloudBase::AdminOnly => Preset::AdminOnly,
        }
    }
}
