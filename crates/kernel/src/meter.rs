//! What an environment uses, as it is counted and priced.

use std::fmt;
use std::str::FromStr;

use crate::{EnvId, TenantId};

const GIB: u128 = 1 << 30;
const HOUR_MS: u128 = 3_600_000;
/// A year has 8,760 hours.
const MONTH_HOURS: u128 = 730;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meter {
    /// Calls of tools and routes.
    Calls,
    /// Requests of visitors to its app.
    Visits,
    /// Bytes of answers to them that were read.
    Egress,
    /// Processor time of functions, services and sandboxes, in milliseconds.
    Cpu,
    /// Their memory, in mebibytes times milliseconds.
    Memory,
    /// What it keeps, in bytes times seconds.
    Storage,
}

impl Meter {
    /// Every one.
    pub const ALL: [Meter; 6] =
        [Meter::Calls, Meter::Visits, Meter::Egress, Meter::Cpu, Meter::Memory, Meter::Storage];

    /// The name in the database and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Meter::Calls => "calls",
            Meter::Visits => "visits",
            Meter::Egress => "egress",
            Meter::Cpu => "cpu",
            Meter::Memory => "memory",
            Meter::Storage => "storage",
        }
    }

    /// What its amounts are in.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Meter::Calls => "calls",
            Meter::Visits => "requests",
            Meter::Egress => "bytes",
            Meter::Cpu => "milliseconds",
            Meter::Memory => "MiB-milliseconds",
            Meter::Storage => "byte-seconds",
        }
    }

    /// What its price is of.
    #[must_use]
    pub const fn priced_by(self) -> &'static str {
        match self {
            Meter::Calls => "1,000,000 calls",
            Meter::Visits => "1,000,000 requests",
            Meter::Egress => "GiB",
            Meter::Cpu => "hour",
            Meter::Memory => "GiB-hour",
            Meter::Storage => "GiB-month of 730 hours",
        }
    }

    /// How many of its units a price is of.
    #[must_use]
    pub const fn in_a_price(self) -> u128 {
        match self {
            Meter::Calls | Meter::Visits => 1_000_000,
            Meter::Egress => GIB,
            Meter::Cpu => HOUR_MS,
            Meter::Memory => 1_024 * HOUR_MS,
            Meter::Storage => GIB * MONTH_HOURS * 3_600,
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Meter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let meter = Self::ALL.into_iter().find(|meter| meter.as_str() == text);
        meter.ok_or_else(|| {
            let there: Vec<_> = Self::ALL.iter().map(|meter| meter.as_str()).collect();
            format!("there is no meter {text:?}; there are: {}", there.join(", "))
        })
    }
}

/// Who counts what environments use. It must not block.
pub trait Metering: Send + Sync + 'static {
    /// Counts so much more.
    fn count(&self, tenant: TenantId, env: EnvId, meter: Meter, amount: u64);
}
