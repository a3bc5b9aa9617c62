//! What a credential may do, from all that it stands on: never more than any of it, at this moment.

use kernel::{EnvId, Held, KeyId, Networks, Scopes, TenantId, Timestamp};
use store::{Key, KeyKind, Run};

/// What a credential may do.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The kind of the key that it stands on.
    pub kind: KeyKind,
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The one environment that it opens, where it is bound to one.
    pub env: Option<EnvId>,
    /// What it may do.
    pub scopes: Scopes,
    /// What it is held to.
    pub held: Held,
    /// Where it is good; anywhere, where nothing is said.
    pub source: Option<Networks>,
    /// When it ends, if it does.
    pub ends: Option<Timestamp>,
    /// The key that it stands on.
    pub root: KeyId,
    /// The minted ones from the root's child down to itself.
    pub path: Vec<KeyId>,
}

impl Standing {
    /// Of a key; `None` where it is not live.
    pub(crate) fn of_key(key: &Key, now: Timestamp) -> Option<Self> {
        key.is_live(now).then(|| Self {
            kind: key.kind,
            tenant: key.tenant,
            env: key.env,
            scopes: key.scopes,
            held: Held::default(),
            source: key.cidrs.clone(),
            ends: key.expires,
            root: key.id,
            path: Vec::new(),
        })
    }

    /// Of the last of `chain`, which stands on `key` through the others; `None` where any of them is not live, or is not
    /// the child of the one before.
    pub(crate) fn of_chain(key: &Key, chain: &[Run], now: Timestamp) -> Option<Self> {
        let mut standing = Self::of_key(key, now)?;
        for run in chain {
            standing.path.push(run.id);
            let lives = run.revoked.is_none() && run.ends > now;
            // The operator's key is of no one tenant.
            let is_its = key.kind == KeyKind::Operator || run.tenant == standing.tenant;
            let in_env = key.env.is_none_or(|env| env == run.env) && chain[0].env == run.env;
            if !lives || !is_its || !in_env || run.root != key.id || run.path != standing.path {
                return None;
            }
            let (scopes, held) = (run.scopes, &run.held);
            standing = standing.narrowed(scopes, held, run.source.as_ref(), run.ends);
            (standing.tenant, standing.env) = (run.tenant, Some(run.env));
        }
        Some(standing)
    }

    /// Whether it opens this environment of this tenant. The operator's key opens all.
    #[must_use]
    pub fn opens(&self, tenant: TenantId, env: EnvId) -> bool {
        let is_its = self.tenant == tenant && self.env.is_none_or(|bound| bound == env);
        is_its || (self.kind == KeyKind::Operator && self.path.is_empty())
    }

    /// What it stands on: its key, then those minted between; nothing, where it is a key.
    pub fn above(&self) -> impl Iterator<Item = KeyId> {
        let between = self.path.len().checked_sub(1);
        let root = between.map(|_| self.root);
        root.into_iter().chain(self.path.iter().copied().take(between.unwrap_or_default()))
    }

    /// Of both: what it may and what is said here.
    pub(crate) fn narrowed(
        self,
        scopes: Scopes,
        held: &Held,
        source: Option<&Networks>,
        ends: Timestamp,
    ) -> Self {
        let source = match (self.source, source) {
            (Some(mine), Some(others)) => Some(mine.intersection(others)),
            (mine, others) => mine.or_else(|| others.cloned()),
        };
        Self {
            scopes: self.scopes.intersection(scopes),
            held: self.held.and(held),
            source,
            ends: Some(self.ends.map_or(ends, |mine| mine.min(ends))),
            ..self
        }
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
