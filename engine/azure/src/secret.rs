//! Text that must not be printed.

use std::fmt;

use zeroize::Zeroizing;

/// A BitLocker key as text: never printed, never copied, wiped on drop. Owners that share one hold it in an `Arc`.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Copies `text` into memory that is wiped on drop; wiping the source is up to its owner.
    pub fn new(text: &str) -> Self {
        // `to_owned` allocates once, at the final size: no copies stay behind in outgrown buffers.
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
