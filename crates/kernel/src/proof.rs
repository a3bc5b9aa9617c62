//! Proofs of authorization: values that only a check can make, and that every capability asks for.

use crate::{Caller, Code, Consent, EnvId, Error, Result, Scope, Scopes, TenantId};

/// A proof for one level of the platform.
pub trait Proof: Sized + Send + Sync + 'static {
    /// Checks that `caller` may use `wanted` on this level, for what is no tool. A credential that is held to tools, or to
    /// values in their inputs, is for nothing else.
    ///
    /// # Errors
    /// `forbidden` naming the missing scope; `invalid_input` where the call lacks an environment.
    fn authorize(caller: &Caller, wanted: &[Scope]) -> Result<Self> {
        Self::authorize_for(caller, wanted, None)
    }

    /// The same for a call of `tool`, where there is one. Whoever asks for a tool holds its input to the credential's
    /// rules.
    ///
    /// # Errors
    /// As [`Proof::authorize`]; `forbidden` where the credential is not for the tool.
    fn authorize_for(caller: &Caller, wanted: &[Scope], tool: Option<&str>) -> Result<Self>;

    /// The environment of the proof, where it has one; for the records.
    fn env(&self) -> Option<EnvId>;
}

/// Proof that a caller may act in one environment. Only [`Proof::authorize`] makes it. Two are equal where they are of the
/// same environment.
#[derive(Debug, Clone)]
pub struct Env {
    tenant: TenantId,
    id: EnvId,
    scopes: Scopes,
}

impl Env {
    /// The environment.
    #[must_use]
    pub const fn id(&self) -> EnvId {
        self.id
    }

    /// The tenant that owns it.
    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// A proof for the platform's own upkeep of an environment (recovery, collection, serving), where there is
    /// no caller to check.
    #[must_use]
    pub const fn for_upkeep(tenant: TenantId, id: EnvId) -> Self {
        Self { tenant, id, scopes: Scopes::all() }
    }

    /// That who acts may do what only a closer look shows to be needed.
    ///
    /// # Errors
    /// `forbidden` naming the missing scope.
    pub fn permits(&self, wanted: &[Scope]) -> Result<()> {
        lacking(self.scopes, wanted)
    }
}

impl PartialEq for Env {
    fn eq(&self, other: &Self) -> bool {
        (self.tenant, self.id) == (other.tenant, other.id)
    }
}

impl Eq for Env {}

impl Proof for Env {
    fn authorize_for(caller: &Caller, wanted: &[Scope], tool: Option<&str>) -> Result<Self> {
        check(caller, wanted, tool)?;
        let id = caller.env.ok_or_else(|| {
            Error::new(Code::InvalidInput, "this call needs an environment")
                .hint("name one with the Steading-Env header, or use /mcp/<environment>")
        })?;
        Ok(Self { tenant: caller.tenant, id, scopes: caller.scopes })
    }

    fn env(&self) -> Option<EnvId> {
        Some(self.id)
    }
}

/// Proof that a caller may act for a tenant as a whole. Only [`Proof::authorize`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    id: TenantId,
}

impl Tenant {
    /// The tenant.
    #[must_use]
    pub const fn id(&self) -> TenantId {
        self.id
    }
}

impl Proof for Tenant {
    fn authorize_for(caller: &Caller, wanted: &[Scope], tool: Option<&str>) -> Result<Self> {
        check(caller, wanted, tool)?;
        Ok(Self { id: caller.tenant })
    }

    fn env(&self) -> Option<EnvId> {
        None
    }
}

fn check(caller: &Caller, wanted: &[Scope], tool: Option<&str>) -> Result<()> {
    if !caller.principal.may_call_tools() {
        return Err(Error::new(Code::Forbidden, "an app's users cannot call platform tools"));
    }
    lacking(caller.scopes, wanted).map_err(|error| match caller.consent {
        // What nobody consents to is not asked for.
        Consent::Asked if wanted.iter().all(|scope| Scopes::of_environment().contains(*scope)) => {
            error.lacking(wanted.iter().copied().collect())
        }
        Consent::Asked | Consent::Fixed => error,
    })?;
    match (&caller.held, tool) {
        (None, _) => Ok(()),
        (Some(held), Some(tool)) => held.permits(tool),
        (Some(_), None) => {
            Err(Error::new(Code::Forbidden, "the credential is held to tools, and this is none")
                .hint("use a credential that was made with scopes alone"))
        }
    }
}

fn lacking(scopes: Scopes, wanted: &[Scope]) -> Result<()> {
    match scopes.missing(wanted) {
        None => Ok(()),
        Some(scope) => Err(Error::new(Code::Forbidden, format!("the credential lacks the scope {scope}"))
            .hint("use a credential that carries it, or ask who made this one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyId, Principal, UserId};

    fn caller(principal: Principal, scopes: &[Scope], env: Option<EnvId>) -> Caller {
        let scopes = scopes.iter().copied().collect::<Scopes>();
        Caller::new(principal, TenantId::new(), KeyId::new(), scopes).in_env(env)
    }

    #[test]
    fn who_is_held_to_tools_has_those_and_nothing_beside_them() {
        let held = std::sync::Arc::new(crate::Held::to(["db_query"]));
        let caller = caller(Principal::Key, &[Scope::DbRead], Some(EnvId::new())).held_to(Some(held));
        assert!(Env::authorize_for(&caller, &[Scope::DbRead], Some("db_query")).is_ok());
        for tool in [None, Some("db_load")] {
            let refused = Env::authorize_for(&caller, &[Scope::DbRead], tool).map_err(|e| e.code());
            assert_eq!(refused, Err(Code::Forbidden), "{tool:?}");
            assert!(Tenant::authorize_for(&caller, &[], tool).is_err(), "{tool:?}");
        }
    }

    #[test]
    fn the_missing_scope_is_named() {
        let caller = caller(Principal::Key, &[Scope::DbRead], Some(EnvId::new()));
        let refused = Env::authorize(&caller, &[Scope::DbRead, Scope::DbWrite]);
        assert_eq!(
            refused.map_err(|e| format!("{e:?}")),
            Err("forbidden the credential lacks the scope db:write".into())
        );
        let proof = Env::authorize(&caller, &[Scope::DbRead]).unwrap();
        assert!(proof.permits(&[Scope::DbRead]).is_ok() && proof.permits(&[Scope::SecretWrite]).is_err());
        let upkeep = Env::for_upkeep(proof.tenant(), proof.id());
        assert!(upkeep.permits(Scope::ALL).is_ok());
        assert_eq!(upkeep, proof, "it is the same place");
    }

    #[test]
    fn an_apps_users_never_pass_whatever_scopes_they_carry() {
        for principal in [Principal::EndUser(UserId::new()), Principal::Visitor] {
            let caller = caller(principal, Scope::ALL, Some(EnvId::new()));
            assert!(Env::authorize(&caller, &[]).is_err());
            assert!(Tenant::authorize(&caller, &[]).is_err());
        }
    }

    #[test]
    fn without_an_environment_there_is_no_proof_of_one() {
        let caller = caller(Principal::Operator, Scope::ALL, None);
        assert_eq!(Env::authorize(&caller, &[]).map_err(|e| e.code()), Err(Code::InvalidInput));
        assert!(Tenant::authorize(&caller, &[]).is_ok());
    }
}
