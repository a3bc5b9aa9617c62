//! The control plane's seal and memory, for domains and certificates.

use std::sync::Arc;

use capabilities::domains::Seal;
use control::Control;
use kernel::Result;
use zeroize::Zeroizing;

/// The control plane.
pub struct Keeper(pub Arc<Control>);

impl Seal for Keeper {
    fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.0.sealing().seal(place, value)
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.0.sealing().open(place, sealed)
    }

    fn domain_changed(&self, domain: &str) {
        self.0.environments().domain_changed(domain);
    }
}
