//! What a plan bounds, and how plans come together.

use kernel::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::RateLimit;

/// The smallest database, in bytes: the platform's own tables take some of it.
const DATABASE: u64 = 1 << 20;
/// More than is ever counted.
const MOST: u64 = 1 << 53;

macro_rules! bounds {
    ($(#[$of:meta])* $name:ident { $($(#[$doc:meta])* $field:ident >= $least:expr,)+ }) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<u64>,
            )+
        }

        impl $name {
            /// The names of all bounds.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];

            /// What is said here, and for the rest what `others` says.
            #[must_use]
            pub fn or(self, others: Self) -> Self {
                Self { $($field: self.$field.or(others.$field),)+ }
            }

            /// The smaller one of each.
            #[must_use]
            pub fn within(self, others: Self) -> Self {
                let smaller = |one: Option<u64>, other: Option<u64>| match (one, other) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                Self { $($field: smaller(self.$field, others.$field),)+ }
            }

            fn check(&self, at: &str) -> Result<()> {
                $(
                    if let Some(number) = self.$field
                        && !($least..=MOST).contains(&number)
                    {
                        let field = format!("{at}/{}", stringify!($field));
                        return Err(Error::invalid(field, format!("it is {} to {MOST}", $least)));
                    }
                )+
                Ok(())
            }
        }
    };
}

bounds! {
    /// What a tenant may have and do, all its credentials and environments together.
    TenantBounds {
        /// Calls of tools and routes per second in the long run.
        calls_per_second >= 1,
        /// Calls that may come at once after a rest; twice as many as per second where only that is said.
        calls_burst >= 1,
        /// Calls that may be under way; who comes then waits for a moment.
        calls_at_once >= 1,
        /// Environments.
        environments >= 0,
    }
}

bounds! {
    /// What each environment may have and do.
    EnvironmentBounds {
        /// Calls of tools and routes per second in the long run.
        calls_per_second >= 1,
        /// Calls that may come at once after a rest; twice as many as per second where only that is said.
        calls_burst >= 1,
        /// Calls that may be under way; who comes then waits for a moment.
        calls_at_once >= 1,
        /// Requests of visitors to its app per second in the long run.
        visits_per_second >= 1,
        /// Requests of visitors that may come at once after a rest; twice as many as per second where only that is said.
        visits_burst >= 1,
        /// Requests of visitors that may be under way.
        visits_at_once >= 1,
        /// The largest database, in bytes.
        database_bytes >= DATABASE,
        /// What the files in its buckets may have together, in bytes.
        files_bytes >= 0,
    }
}

/// What a plan bounds. What is not said is as the plan `default` says, and as configured where that says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Of a tenant.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub tenant: TenantBounds,
    /// Of each of its environments.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub environment: EnvironmentBounds,
}

fn is_empty<T: Default + PartialEq>(bounds: &T) -> bool {
    *bounds == T::default()
}

impl Bounds {
    /// The bounds that JSON says, held against what they can be.
    ///
    /// # Errors
    /// `invalid_input` naming the bound.
    pub fn read(limits: &Value, at: &str) -> Result<Self> {
        if !limits.is_object() {
            return Err(Error::invalid(at.to_owned(), "limits are an object")
                .hint("such as {\"tenant\": {\"environments\": 5}}"));
        }
        for (part, names) in [("tenant", TenantBounds::NAMES), ("environment", EnvironmentBounds::NAMES)] {
            if limits.get(part).is_some_and(|part| !part.is_object()) {
                return Err(Error::invalid(format!("{at}/{part}"), "limits are an object"));
            }
            let said = limits.get(part).and_then(Value::as_object).into_iter().flatten();
            for (name, value) in said {
                let field = || format!("{at}/{part}/{name}");
                if !names.contains(&name.as_str()) {
                    let message = format!("there is no such limit; there are: {}", names.join(", "));
                    return Err(Error::invalid(field(), message));
                }
                if !value.is_u64() && !value.is_null() {
                    return Err(Error::invalid(field(), "a limit is a whole number"));
                }
            }
        }
        let bounds: Self = serde_json::from_value(limits.clone())
            .map_err(|error| Error::invalid(at.to_owned(), error.to_string()))?;
        bounds.tenant.check(&format!("{at}/tenant"))?;
        bounds.environment.check(&format!("{at}/environment"))?;
        Ok(bounds)
    }

    /// What is said here, and for the rest what `others` says.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { tenant: self.tenant.or(others.tenant), environment: self.environment.or(others.environment) }
    }

    /// As the database and the wire have it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A rate of which a part may be said.
pub(crate) fn rate(per_second: Option<u64>, burst: Option<u64>) -> Option<RateLimit> {
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let per_second = per_second?;
    let burst = burst.unwrap_or_else(|| per_second.saturating_mul(2)).max(1);
    RateLimit::new(small(per_second), small(burst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_a_limit_is_named() {
        let wrong =
            |limits| Bounds::read(&limits, "/limits").unwrap_err().pointer().unwrap_or_default().to_owned();
        assert_eq!(wrong(json!({ "tenant": { "moons": 1 } })), "/limits/tenant/moons");
        assert_eq!(wrong(json!({ "tenant": { "calls_at_once": 0 } })), "/limits/tenant/calls_at_once");
        assert_eq!(wrong(json!({ "tenant": { "calls_at_once": -1 } })), "/limits/tenant/calls_at_once");
        assert_eq!(wrong(json!({ "tenant": { "calls_at_once": 1.5 } })), "/limits/tenant/calls_at_once");
        assert_eq!(wrong(json!({ "tenant": { "calls_at_once": u64::MAX } })), "/limits/tenant/calls_at_once");
        assert_eq!(
            wrong(json!({ "environment": { "database_bytes": 1 } })),
            "/limits/environment/database_bytes"
        );
        assert_eq!(wrong(json!({ "world": {} })), "/limits");
        assert_eq!(wrong(json!([])), "/limits");
        assert_eq!(wrong(json!({ "tenant": [] })), "/limits/tenant");
    }

    #[test]
    fn plans_come_together_by_the_part_that_is_said_and_environments_by_the_smaller_one() {
        let plan = Bounds::read(&json!({ "tenant": { "environments": 5 } }), "").unwrap();
        let usual = json!({ "tenant": { "environments": 1, "calls_at_once": 9 } });
        let both = plan.or(Bounds::read(&usual, "").unwrap());
        assert_eq!(both.to_json(), json!({ "tenant": { "environments": 5, "calls_at_once": 9 } }));
        let one = EnvironmentBounds { files_bytes: Some(5), ..Default::default() };
        let other = EnvironmentBounds { files_bytes: Some(7), visits_burst: Some(2), ..Default::default() };
        assert_eq!(one.within(other), EnvironmentBounds { visits_burst: Some(2), ..one });
    }
}
