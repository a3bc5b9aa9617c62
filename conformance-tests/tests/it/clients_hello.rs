//! The example, deployed as the README says, in a real browser.
