//! What is found of a domain, in words, and what to do next.

use std::net::IpAddr;

use kernel::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use store::DomainClaim;

use super::dns::{Leads, Unanswered};
use super::{DomainName, Standing};

/// A DNS record to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Record {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: RecordKind,
    /// Its full name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The types of records that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// Proof.
    Txt,
    /// Another name.
    Cname,
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
}

/// What a check has come to.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Checked {
    /// The domain.
    pub domain: String,
    /// Whether it is proven; the app answers there from then on.
    pub proven: bool,
    /// Whether visitors are led here.
    pub leads_here: bool,
    /// Where its certificate stands.
    pub certificate: CertificateState,
    /// Until when the certificate counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What was found.
    pub findings: Vec<String>,
    /// What to do; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Records that are still to be made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// Where a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// One that is valid is served.
    Valid,
    /// The local authority's is served; visitors have to trust it.
    Local,
    /// It is being ordered.
    Pending,
    /// The last order failed; an earlier certificate is served where there is one.
    Failed,
    /// There is none.
    None,
}

/// What was looked up.
pub(super) struct Seen<'a> {
    pub name: &'a DomainName,
    pub claim: &'a DomainClaim,
    /// Whether another environment has proven it.
    pub foreign: bool,
    pub texts: Result<Vec<String>, Unanswered>,
    pub leads: Result<Leads, Unanswered>,
    /// The records that are wanted: the proof first.
    pub wanted: Vec<Record>,
    /// Where visitors should be led, by name and by address.
    pub host: &'a str,
    pub addresses: Vec<IpAddr>,
    /// None where the domain is not proven, or HTTPS is served by something before the platform.
    pub standing: Option<Standing>,
    pub now: Timestamp,
    /// When a proof that is missing stops to count.
    pub patience: Option<Timestamp>,
}

/// How much of a foreign TXT record is shown.
const SHOWN: usize = 80;

impl Seen<'_> {
    pub(super) fn judged(self) -> Checked {
        let mut findings = Vec::new();
        let mut steps = Vec::new();
        let mut records = Vec::new();
        let published = self.proof(&mut findings, &mut steps);
        if !published {
            records.extend(self.wanted.iter().filter(|record| record.kind == RecordKind::Txt).cloned());
        }
        let leads_here = self.way(&mut findings, &mut steps);
        if !leads_here {
            records.extend(self.wanted.iter().filter(|record| record.kind != RecordKind::Txt).cloned());
        }
        let proven = self.claim.proven.is_some();
        let certificate = self.certificate(proven, leads_here, &mut findings, &mut steps);
        Checked {
            domain: self.name.to_string(),
            proven,
            leads_here,
            certificate,
            expires: self.standing.as_ref().and_then(|standing| standing.expires).map(|at| at.to_string()),
            findings,
            next: steps.into_iter().next(),
            records,
        }
    }

    fn proof(&self, findings: &mut Vec<String>, steps: &mut Vec<String>) -> bool {
        let (at, token) = (self.name.proof_name(), &self.claim.token);
        let found = match &self.texts {
            Err(unanswered) => {
                findings.push(unanswered.to_string());
                steps.push("try again in a minute; the domain's name servers may be down".to_owned());
                return self.claim.proven.is_some();
            }
            Ok(texts) => texts,
        };
        if found.iter().any(|text| text.trim() == token) {
            if self.foreign {
                findings.push(
                    "the proof is there, and the domain is proven for another environment too".to_owned(),
                );
                steps.push(format!(
                    "remove the other TXT records at {at}: a week after its proof is gone the other one loses the domain"
                ));
            } else {
                findings.push(format!("the TXT record at {at} proves the domain"));
            }
            return true;
        }
        match found.as_slice() {
            [] => findings.push(format!("there is no TXT record at {at}")),
            [one] => findings.push(format!("the TXT record at {at} is {:?} and not the proof", shown(one))),
            many => findings.push(format!("none of the {} TXT records at {at} is the proof", many.len())),
        }
        let step = format!("make a TXT record at {at} with the value {token}");
        match self.patience {
            Some(until) => steps.push(format!("{step} again, before {until}: the app stops to answer then")),
            None => steps.push(format!("{step}, then call domain_check again")),
        }
        false
    }

    fn way(&self, findings: &mut Vec<String>, steps: &mut Vec<String>) -> bool {
        let name = self.name;
        let found = match &self.leads {
            Err(unanswered) => {
                findings.push(unanswered.to_string());
                steps.push("try again in a minute; the domain's name servers may be down".to_owned());
                return false;
            }
            Ok(found) => found,
        };
        let wanted: Vec<_> = self.wanted.iter().filter(|record| record.kind != RecordKind::Txt).collect();
        let by_name = found.aliases.iter().any(|alias| alias == self.host);
        let foreign: Vec<_> =
            found.addresses.iter().filter(|address| !self.addresses.contains(address)).collect();
        if by_name || (!found.addresses.is_empty() && foreign.is_empty()) {
            findings.push(format!("{name} leads here"));
            return true;
        }
        let words: Vec<_> =
            wanted.iter().map(|record| format!("{} {}", upper(record.kind), record.value)).collect();
        let make = match wanted.as_slice() {
            [] => "set domains.addresses to the platform's public addresses".to_owned(),
            [record] => {
                format!("make a {} record at {name} with the value {}", upper(record.kind), record.value)
            }
            _ => format!("make these records at {name}: {}", words.join(", ")),
        };
        match (found.addresses.is_empty(), found.aliases.last()) {
            (true, None) => {
                findings.push(format!("{name} has no address"));
                steps.push(make);
            }
            (true, Some(alias)) => {
                findings.push(format!("{name} stands for {alias}, which has no address"));
                steps.push(format!("{make} in place of it"));
            }
            (false, _) => {
                let all: Vec<_> = foreign.iter().take(4).map(ToString::to_string).collect();
                findings.push(format!("{name} leads to {}, which is not here", all.join(", ")));
                steps.push(format!("{make} in place of it; with a proxy before it, leave it as it is"));
            }
        }
        false
    }

    fn certificate(
        &self,
        proven: bool,
        leads_here: bool,
        findings: &mut Vec<String>,
        steps: &mut Vec<String>,
    ) -> CertificateState {
        let Some(standing) = &self.standing else {
            if proven {
                findings.push("HTTPS is not served here: a proxy before the platform has to".to_owned());
            }
            return CertificateState::None;
        };
        if let Some(error) = &standing.error {
            findings.push(format!("the certificate could not be ordered: {error}"));
            if let Some(expires) = standing.expires {
                findings.push(format!("the earlier one is served, until {expires}"));
            }
            let again = standing.due.map(|due| format!("it is tried again at {due}")).unwrap_or_default();
            steps.push(if leads_here { again } else { format!("lead the domain here; {again}") });
            return CertificateState::Failed;
        }
        if let Some(expires) = standing.expires {
            let issuer = standing.issuer.as_deref().unwrap_or("its authority");
            if expires <= self.now {
                findings.push(format!("the certificate of {issuer} ended at {expires}"));
                steps
                    .push("give a new one with domain_set, or delete the domain and set it again".to_owned());
                return CertificateState::Failed;
            }
            findings.push(format!("a certificate of {issuer} is served, until {expires}"));
            return CertificateState::Valid;
        }
        if standing.local {
            findings.push(
                "HTTPS is served with the platform's own authority, which visitors have to trust".to_owned(),
            );
            return CertificateState::Local;
        }
        if standing.due.is_some() {
            findings.push("the certificate is being ordered".to_owned());
            steps.push("call domain_check again in a minute".to_owned());
            return CertificateState::Pending;
        }
        findings.push("there is no certificate for it".to_owned());
        CertificateState::None
    }
}

fn upper(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Txt => "TXT",
        RecordKind::Cname => "CNAME",
        RecordKind::A => "A",
        RecordKind::Aaaa => "AAAA",
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
