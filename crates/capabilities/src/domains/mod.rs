//! Domains of environments: claimed, proven by DNS, served with a certificate.

mod acme;
mod certificate_files;
mod certificates;
mod chain;
mod challenges;
mod check;
mod dns;
mod local_ca;
mod name;
mod ports;
mod service;

pub use acme::{AcmeSettings, Method};
pub use certificates::{Authority, CertificateSettings, Certificates, Standing};
pub use chain::Chain;
pub use challenges::{Challenges, HTTP_CHALLENGE};
pub use check::{CertificateState, Checked, Record, RecordKind};
pub use dns::Dns;
pub use local_ca::LocalCa;
pub use name::{DomainName, Reserved};
pub use ports::{Clock, Owner, Owners, Seal};
pub use service::{DomainInfo, DomainSettings, Domains, Given, Set};
