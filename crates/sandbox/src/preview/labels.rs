//! Host labels of previews: whoever has one was given it, and it leads to one port of one sandbox.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kernel::SandboxId;
use sha2::Sha256;

/// The bytes of an id.
const ID: usize = 16;
/// The bytes of a proof: 120 bits are not guessed, and leave the label shorter than 63 characters (RFC 1035 §2.3.4).
const PROOF: usize = 15;

/// Makes labels and reads them, `<port>-<token>`. Nothing is stored: a label proves itself.
#[derive(Clone)]
pub struct Labels(Hmac<Sha256>);

impl Labels {
    /// Those of one key, which all nodes of a platform share; another key makes every label of this one worthless.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // A short key is filled up with nulls (RFC 2104 §2).
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    /// The label of a port of a sandbox, the same every time.
    #[must_use]
    pub fn label(&self, sandbox: SandboxId, port: u16) -> String {
        let id = id(sandbox);
        let proof = self.over(&id, port).finalize().into_bytes();
        let token: Vec<u8> = id.iter().chain(&proof[..PROOF]).copied().collect();
        format!("{port}-{}", BASE32_NOPAD.encode(&token).to_ascii_lowercase())
    }

    /// What a label leads to; none where it was not made here.
    #[must_use]
    pub fn read(&self, label: &str) -> Option<(SandboxId, u16)> {
        let (digits, token) = label.split_once('-')?;
        let port: u16 = digits.parse().ok().filter(|port: &u16| *port != 0 && port.to_string() == digits)?;
        let token = BASE32_NOPAD.decode(token.to_ascii_uppercase().as_bytes()).ok()?;
        let (id, proof) = token.split_at_checked(ID).filter(|(_, proof)| proof.len() == PROOF)?;
        self.over(id, port).verify_truncated_left(proof).ok()?;
        Some((format!("sbx_{}", HEXLOWER.encode(id)).parse().ok()?, port))
    }

    /// The key, for other proofs.
    pub(super) fn key(&self) -> Hmac<Sha256> {
        self.0.clone()
    }

    fn over(&self, id: &[u8], port: u16) -> Hmac<Sha256> {
        self.0.clone().chain_update(b"preview").chain_update(id).chain_update(port.to_be_bytes())
    }
}

/// The bytes of an id.
pub(super) fn id(sandbox: SandboxId) -> Vec<u8> {
    let text = sandbox.to_string();
    let digits = text.rsplit('_').next().unwrap_or_default();
    // An id's own text is always such digits.
    HEXLOWER.decode(digits.as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_leads_to_its_port_of_its_sandbox() {
        let labels = Labels::new(&[7; 32]);
        let sandbox = SandboxId::new();
        for port in [1, 5173, 65_535] {
            let label = labels.label(sandbox, port);
            assert!(label.len() <= 63 && label == labels.label(sandbox, port), "{label}");
            assert_eq!(labels.read(&label), Some((sandbox, port)));
            assert_eq!(labels.read(&label.to_ascii_uppercase()), Some((sandbox, port)));
        }
    }

    #[test]
    fn no_other_label_leads_anywhere() {
        let labels = Labels::new(&[7; 32]);
        let (sandbox, other) = (SandboxId::new(), SandboxId::new());
        let label = labels.label(sandbox, 5173);
        let token = label.strip_prefix("5173-").unwrap();
        let others = labels.label(other, 5173);
        let mixed = format!("{}{}", &others[..26], &label[26..]);
        for bad in [
            "",
            "5173",
            "5173-",
            "-",
            token,
            &format!("5174-{token}"),
            &format!("05173-{token}"),
            &format!("+5173-{token}"),
            &format!("0-{token}"),
            &format!("{label}a"),
            &label[..label.len() - 1],
            &mixed,
            &Labels::new(&[8; 32]).label(sandbox, 5173),
        ] {
            assert_eq!(labels.read(bad), None, "{bad}");
        }
        for at in 5..label.len() {
            let mut bytes = label.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(labels.read(std::str::from_utf8(&bytes).unwrap()), None, "{at}");
        }
    }
}
