//! The addresses of a host, asked for once in a while.
//!
//! The client asks for them before every request, also where it goes on with an open connection, and by a thread of its
//! own where the question has a time limit. With small blobs that was a tenth of an import's processor time, and
//! thousands of questions a second to the name server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Age at which an answer is asked for again: shorter than what name servers grant for storage accounts.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Answers by host and port, and when they came.
type Known = HashMap<String, (Instant, ResolvedSocketAddrs)>;

/// Addresses that are known. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    known: Arc<Mutex<Known>>,
    system: Arc<DefaultResolver>,
}

impl Names {
    /// Asks again at the next request: the addresses did not serve.
    pub fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The addresses of `name`, by `ask` unless they are known at the time `now`.
    fn look_up(
        &self,
        name: &str,
        now: Instant,
        ask: impl FnOnce() -> Result<ResolvedSocketAddrs, Error>,
    ) -> Result<ResolvedSocketAddrs, Error> {
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, addresses)) = known.get(name)
                && now.saturating_duration_since(*at) < AGE_MAX
            {
                return Ok(addresses.clone());
            }
        }
        // Not under the lock: one that waits for an answer holds up nobody else.
        let addresses = ask()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_owned(), (now, addresses.clone()));
        Ok(addresses)
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let name = match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => DefaultResolver::host_and_port(scheme, authority),
            _ => None,
        };
        let ask = || self.system.resolve(uri, config, timeout);
        match name {
            Some(name) => self.look_up(&name, Instant::now(), ask),
            None => ask(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_again_when_its_answer_is_old_or_did_not_serve() {
        let names = Names::default();
        let asked = std::cell::Cell::new(0);
        let began = Instant::now();
        let look_up = |name: &str, after: Duration| {
            let answer = names.look_up(name, began + after, || {
                asked.set(asked.get() + 1);
                let mut out = names.empty();
                out.push(([127, 0, 0, asked.get()], 443).into());
                Ok(out)
            });
            answer.expect("an address")[0].to_string()
        };
        assert_eq!(look_up("a:443", Duration::ZERO), "127.0.0.1:443");
        assert_eq!(look_up("a:443", AGE_MAX - Duration::from_secs(1)), "127.0.0.1:443");
        assert_eq!(look_up("b:443", Duration::ZERO), "127.0.0.2:443");
        assert_eq!(look_up("a:443", AGE_MAX), "127.0.0.3:443");
        names.forget();
        assert_eq!(look_up("a:443", AGE_MAX), "127.0.0.4:443");
        assert!(names.look_up("c:443", began, || Err(Error::HostNotFound)).is_err());
        assert_eq!(look_up("c:443", Duration::ZERO), "127.0.0.5:443");
    }
}
