//! Run tokens: what a sandbox may show of a run while the run lives.
//!
//! A token is random and stored only as a hash. It is good on the bridge of one sandbox, for one environment and the named
//! tools, for at most fifteen minutes, and no longer than its run. Its holder renews it before it ends.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Code, EnvId, Error, Result, RunId, SandboxId, Secret};
use sha2::{Digest as _, Sha256};

/// What a token begins with, so that secret scanners find it.
const PREFIX: &str = "stead_run_";

/// The longest that a token is good for.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long the token before the newest one is good for, so that a call on its way arrives.
const OVERLAP: Duration = Duration::from_secs(30);

/// What a run may do from a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// The run.
    pub run: RunId,
    /// The environment that its tools act in.
    pub env: EnvId,
    /// The tools.
    pub tools: Arc<BTreeSet<String>>,
    /// How long a token is good for; longer than [`LONGEST`] is [`LONGEST`].
    pub lasts: Duration,
}

/// A grant whose token was shown where it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass(Arc<Grant>);

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("the call carries no run token")]
    Missing,
    /// It is none, was revoked, or its run has ended.
    #[error("the run token is not valid")]
    Unknown,
    /// It is too old.
    #[error("the run token has expired")]
    Expired,
    /// It is another sandbox's.
    #[error("the run token is another sandbox's")]
    OtherSandbox,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let hint = "read the token from /run/steading/token again; it is good while the run is active";
        match refused {
            Refused::Missing => Self::new(Code::Unauthenticated, refused.to_string()).hint(hint),
            // One text for these: nobody learns whether a token that they found is good elsewhere.
            Refused::Unknown | Refused::Expired | Refused::OtherSandbox => {
                Self::new(Code::Unauthenticated, Refused::Unknown.to_string()).hint(hint)
            }
        }
    }
}

/// The tokens of all runs that live.
#[derive(Default)]
pub struct Tokens(Mutex<Live>);

#[derive(Default)]
struct Live {
    runs: HashMap<RunId, Run>,
    tokens: HashMap<[u8; 32], RunId>,
}

struct Run {
    grant: Arc<Grant>,
    /// The newest last, two at most.
    tokens: Vec<Kept>,
}

struct Kept {
    hash: [u8; 32],
    ends: Instant,
}

impl Pass {
    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.0
    }
}

impl Tokens {
    /// Begins a run and makes its first token; a run that has begun gets what is granted now, and its earlier tokens end.
    ///
    /// # Errors
    /// `internal` where there is no randomness.
    pub fn begin(&self, grant: Grant) -> Result<Secret> {
        let mut live = self.live();
        live.end(grant.run);
        let run = grant.run;
        live.runs.insert(run, Run { grant: Arc::new(grant), tokens: Vec::new() });
        live.mint(run, Instant::now())
    }

    /// Another token for a run that lives. The one before it is good a moment longer.
    ///
    /// # Errors
    /// `not_found` where the run has ended.
    pub fn renew(&self, run: RunId) -> Result<Secret> {
        self.live().mint(run, Instant::now())
    }

    /// Ends a run: none of its tokens opens anything any more. Once more is no error.
    pub fn end(&self, run: RunId) {
        self.live().end(run);
    }

    /// Ends all runs in a sandbox.
    pub fn end_all_in(&self, sandbox: SandboxId) {
        let mut live = self.live();
        let runs: Vec<RunId> =
            live.runs.values().filter(|run| run.grant.sandbox == sandbox).map(|run| run.grant.run).collect();
        for run in runs {
            live.end(run);
        }
    }

    /// What a token opens that came over the bridge of `sandbox`.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub fn check(&self, sandbox: SandboxId, token: &str) -> Result<Pass, Refused> {
        self.live().check(sandbox, token, Instant::now())
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn mint(&mut self, run: RunId, now: Instant) -> Result<Secret> {
        let Self { runs, tokens } = self;
        let kept = runs.get_mut(&run).ok_or_else(|| Error::not_found("such run that is active"))?;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let hash = hash(&token);
        while kept.tokens.len() > 1 {
            tokens.remove(&kept.tokens.remove(0).hash);
        }
        if let Some(before) = kept.tokens.last_mut() {
            before.ends = before.ends.min(now + OVERLAP);
        }
        kept.tokens.push(Kept { hash, ends: now + kept.grant.lasts.min(LONGEST) });
        tokens.insert(hash, run);
        Ok(Secret::new(token))
    }

    fn check(&self, sandbox: SandboxId, token: &str, now: Instant) -> Result<Pass, Refused> {
        // A look-up by the hash tells a clock nothing of the token.
        let hash = hash(token);
        let run = self.tokens.get(&hash).and_then(|run| self.runs.get(run)).ok_or(Refused::Unknown)?;
        let kept = run.tokens.iter().find(|kept| kept.hash == hash).ok_or(Refused::Unknown)?;
        if run.grant.sandbox != sandbox {
            return Err(Refused::OtherSandbox);
        }
        if now >= kept.ends {
            return Err(Refused::Expired);
        }
        Ok(Pass(Arc::clone(&run.grant)))
    }

    fn end(&mut self, run: RunId) {
        for kept in self.runs.remove(&run).into_iter().flat_map(|run| run.tokens) {
            self.tokens.remove(&kept.hash);
        }
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(sandbox: SandboxId) -> Grant {
        Grant {
            sandbox,
            run: RunId::new(),
            env: EnvId::new(),
            tools: Arc::new(BTreeSet::from(["db_query".to_owned(), "file_read".to_owned()])),
            lasts: Duration::from_secs(3_600),
        }
    }

    #[test]
    fn a_token_opens_what_was_granted_on_its_sandboxs_bridge_alone() {
        let tokens = Tokens::default();
        let (here, there) = (SandboxId::new(), SandboxId::new());
        let granted = grant(here);
        let token = tokens.begin(granted.clone()).unwrap();
        let other = tokens.begin(grant(there)).unwrap();
        assert!(token.expose().starts_with(PREFIX) && token != other);
        let pass = tokens.check(here, token.expose()).unwrap();
        assert_eq!(pass.grant(), &granted);
        assert_eq!(tokens.check(there, token.expose()), Err(Refused::OtherSandbox));
        assert_eq!(tokens.check(here, other.expose()), Err(Refused::OtherSandbox));
        for none in
            ["", PREFIX, "stead_run_x", &token.expose().to_uppercase(), &format!("{} ", token.expose())]
        {
            assert_eq!(tokens.check(here, none), Err(Refused::Unknown), "{none}");
        }
        let words = |refused: Refused| Error::from(refused).message().to_owned();
        assert_eq!(words(Refused::OtherSandbox), words(Refused::Unknown));
    }

    #[test]
    fn a_token_ends_in_time_and_is_renewed_while_its_run_lives() {
        let start = Instant::now();
        let sandbox = SandboxId::new();
        let granted = grant(sandbox);
        let run = granted.run;
        let mut live = Live::default();
        live.runs.insert(run, Run { grant: Arc::new(granted), tokens: Vec::new() });
        let first = live.mint(run, start).unwrap();
        let at = |live: &Live, token: &Secret, seconds| {
            live.check(sandbox, token.expose(), start + Duration::from_secs(seconds)).map(drop)
        };
        assert_eq!((at(&live, &first, 899), at(&live, &first, 900)), (Ok(()), Err(Refused::Expired)));
        let second = live.mint(run, start + Duration::from_secs(600)).unwrap();
        assert_eq!((at(&live, &first, 629), at(&live, &first, 630)), (Ok(()), Err(Refused::Expired)));
        assert_eq!((at(&live, &second, 1_499), at(&live, &second, 1_500)), (Ok(()), Err(Refused::Expired)));
        let third = live.mint(run, start + Duration::from_secs(601)).unwrap();
        assert_eq!((at(&live, &first, 602), at(&live, &second, 602)), (Err(Refused::Unknown), Ok(())));
        assert_eq!(live.tokens.len(), 2);
        live.end(run);
        assert_eq!((at(&live, &third, 602), live.tokens.len()), (Err(Refused::Unknown), 0));
        assert_eq!(live.mint(run, start).map_err(|error| error.code()), Err(Code::NotFound));
    }

    #[test]
    fn a_run_that_ends_or_begins_anew_takes_its_tokens_along() {
        let tokens = Tokens::default();
        let granted = grant(SandboxId::new());
        let check = |token: &Secret| tokens.check(granted.sandbox, token.expose()).map(drop);
        let first = tokens.begin(granted.clone()).unwrap();
        let second = tokens.begin(granted.clone()).unwrap();
        assert_eq!((check(&first), check(&second)), (Err(Refused::Unknown), Ok(())));
        tokens.end(granted.run);
        assert_eq!(check(&second), Err(Refused::Unknown));
        assert!(tokens.renew(granted.run).is_err());
        let third = tokens.begin(granted.clone()).unwrap();
        let beside = grant(SandboxId::new());
        let stays = tokens.begin(beside.clone()).unwrap();
        tokens.end_all_in(granted.sandbox);
        assert_eq!(check(&third), Err(Refused::Unknown));
        assert!(tokens.check(beside.sandbox, stays.expose()).is_ok());
    }

    #[test]
    fn nothing_of_a_token_is_kept_but_its_hash() {
        let tokens = Tokens::default();
        let granted = grant(SandboxId::new());
        let token = tokens.begin(granted.clone()).unwrap();
        let live = tokens.live();
        let kept: Vec<[u8; 32]> = live.tokens.keys().copied().collect();
        assert_eq!(kept, [hash(token.expose())]);
        assert_eq!(format!("{:?}", live.check(granted.sandbox, "x", Instant::now())), "Err(Unknown)");
    }
}
