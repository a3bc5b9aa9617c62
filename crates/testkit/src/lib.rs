//! Starts the real engines that tests need, and fails where one is missing.
