//! Credentials of a storage account: shared key, SAS, Entra. None can be printed; none comes from a command line.

use std::fmt;

use dray_engine::api::azure::base64;
use dray_engine::report::{Kind, Problem};
use zeroize::{Zeroize, Zeroizing};

use crate::sign::{decoded, encoded};
use crate::token::Tokens;

/// The key of a storage account.
pub struct AccountKey(Zeroizing<Vec<u8>>);

impl AccountKey {
    /// From base64, as the portal shows it; a whole connection string will do. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches('"');
        let named = text.split(';').find_map(|part| part.trim().strip_prefix("AccountKey="));
        let bytes = base64::decode(named.unwrap_or(text).trim())?;
        (!bytes.is_empty()).then(|| Self(Zeroizing::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A shared access signature: what stands behind the `?`, in names and values.
pub struct Sas(Vec<(String, Zeroizing<String>)>);

impl Sas {
    /// From a query, with or without its `?`; a whole address will do, if it has no other host in mind. `None` without a
    /// signature.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_matches('"');
        let query = text.split_once('?').map_or(text, |(_, query)| query);
        if query.bytes().any(|b| !b.is_ascii_graphic()) {
            return None;
        }
        let pairs: Vec<(String, Zeroizing<String>)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decoded(name), Zeroizing::new(decoded(value))))
            .collect();
        pairs.iter().any(|(name, value)| name == "sig" && !value.is_empty()).then_some(Self(pairs))
    }

    /// Appended to a query.
    pub(crate) fn query(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::new());
        for (name, value) in &self.0 {
            let mut coded = encoded(value, false);
            if !out.is_empty() {
                out.push('&');
            }
            out.push_str(name);
            out.push('=');
            out.push_str(&coded);
            coded.zeroize();
        }
        out
    }

    /// Expiry, as it states it.
    pub fn expiry(&self) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == "se").map(|(_, value)| value.as_str())
    }

    /// Its rights, such as `rl`.
    pub fn rights(&self) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == "sp").map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Authorisation of requests to an account.
#[derive(Debug)]
pub enum Credential {
    /// The account's own key signs each request.
    Key(AccountKey),
    /// A signature that came from elsewhere.
    Sas(Sas),
    /// A token of Entra for each request.
    Entra(Tokens),
}

impl Credential {
    /// A key, as a file holds it.
    ///
    /// # Errors
    /// When it holds none; the text is not repeated.
    pub fn key(text: &str) -> Result<Self, Problem> {
        AccountKey::parse(text).map(Self::Key).ok_or_else(|| {
            Problem::new(Kind::Usage, "holds no account key").advice(
                "save one of the two keys of the storage account (base64, 88 characters), or a connection string",
            )
        })
    }

    /// A SAS, as a file holds it.
    ///
    /// # Errors
    /// When it holds none, or one that is over; the text is not repeated.
    pub fn sas(text: &str, now: jiff::Timestamp) -> Result<Self, Problem> {
        let sas = Sas::parse(text).ok_or_else(|| {
            Problem::new(Kind::Usage, "holds no shared access signature")
                .advice("save the part after the ? of the SAS: sv=…&sig=…")
        })?;
        // A date alone, or minutes without seconds, are allowed too: those the service judges.
        if let Some(end) = sas.expiry().and_then(|text| text.parse::<jiff::Timestamp>().ok())
            && end < now
        {
            return Err(Problem::new(Kind::Usage, "the shared access signature is over")
                .value(end.to_string())
                .advice("make a new one with the rights read and list"));
        }
        Ok(Self::Sas(sas))
    }

    /// In a word, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "account key",
            Self::Sas(_) => "shared access signature",
            Self::Entra(_) => "Entra",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_signatures_are_read_and_never_shown() {
        let key = AccountKey::parse(" c2VjcmV0\n").expect("a key");
        assert_eq!(key.bytes(), b"secret");
        let text = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";
        assert_eq!(AccountKey::parse(text).expect("a key").bytes(), b"secret");
        for bad in ["", "not base64", "c2Vjcm"] {
            assert!(AccountKey::parse(bad).is_none(), "{bad}");
        }
        let sas = Sas::parse("?sv=2021-12-02&sp=rl&se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%3D").expect("a SAS");
        assert_eq!((sas.rights(), sas.expiry()), (Some("rl"), Some("2030-01-01T00:00:00Z")));
        assert_eq!(*sas.query(), "sv=2021-12-02&sp=rl&se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%3D");
        // In a signature without percent-encoding, a plus is a plus.
        assert_eq!(*Sas::parse("sig=a+b=").expect("a SAS").query(), "sig=a%2Bb%3D");
        for bad in ["", "sv=1", "sig=", "sig=a b"] {
            assert!(Sas::parse(bad).is_none(), "{bad}");
        }
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let shown = format!("{:?}", Credential::sas("sp=rl&sig=hush", now).expect("a SAS"));
        assert!(!shown.contains("hush"), "{shown}");
        assert_eq!(format!("{key:?}"), "<secret>");
        assert!(Credential::sas("se=2025-12-31T00:00:00Z&sig=hush", now).is_err());
    }
}
