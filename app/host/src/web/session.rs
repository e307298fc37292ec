//! Who may come in: one-time tokens, and the sessions that they become.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use longshore_host_api::ApiError;

/// A token that nobody has used by then is void.
const TOKEN_LIFE: Duration = Duration::from_secs(120);
/// More push out the oldest.
const MAX_TOKENS: usize = 8;
const MAX_SESSIONS: usize = 16;
const PREFIX: &str = "/s/";
const COOKIE: &str = "longshore";

#[derive(Default)]
pub struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tokens: VecDeque<(String, Instant)>,
    sessions: VecDeque<Session>,
}

#[derive(Clone)]
pub struct Session {
    name: String,
    secret: String,
}

impl Session {
    pub fn path(&self) -> String {
        format!("{PREFIX}{}/", self.name)
    }

    /// The value of `Set-Cookie`; it ends with the browser.
    pub fn cookie(&self) -> String {
        format!(
            "{COOKIE}={}; Path={}; HttpOnly; SameSite=Strict",
            self.secret,
            self.path()
        )
    }
}

impl Sessions {
    /// A new token, good for one session.
    pub fn invite(&self) -> Result<String, ApiError> {
        let token = secret()?;
        let mut inner = self.lock();
        push(
            &mut inner.tokens,
            (token.clone(), Instant::now()),
            MAX_TOKENS,
        );
        Ok(token)
    }

    /// The session that the token opens, the first time.
    pub fn redeem(&self, token: &str) -> Option<Session> {
        let mut inner = self.lock();
        inner
            .tokens
            .retain(|(_, since)| since.elapsed() < TOKEN_LIFE);
        let at = inner.tokens.iter().position(|(t, _)| same(t, token))?;
        inner.tokens.remove(at);
        let session = Session {
            name: secret().ok()?[..32].to_owned(),
            secret: secret().ok()?,
        };
        push(&mut inner.sessions, session.clone(), MAX_SESSIONS);
        Some(session)
    }

    /// True if one of the cookies is that session's.
    pub fn knows<'a>(
        &self,
        name: &str,
        cookies: impl IntoIterator<Item = &'a HeaderValue>,
    ) -> bool {
        let Some(session) = self
            .lock()
            .sessions
            .iter()
            .find(|s| same(&s.name, name))
            .cloned()
        else {
            return false;
        };
        cookies
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(key, value)| key == COOKIE && same(value, &session.secret))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() == most {
        list.pop_front();
    }
    list.push_back(item);
}

/// The session of a path, and the path below it.
pub fn split(path: &str) -> Option<(&str, String)> {
    let (name, inner) = path.strip_prefix(PREFIX)?.split_once('/')?;
    Some((name, format!("/{inner}")))
}

/// 256 bits of the system's randomness, in hexadecimal digits.
fn secret() -> Result<String, ApiError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| ApiError::internal(format!("the system gives no randomness: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Compares without telling by its time how much is right.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(text: &str) -> Vec<HeaderValue> {
        vec![HeaderValue::from_str(text).unwrap()]
    }

    #[test]
    fn a_token_opens_one_session() {
        let sessions = Sessions::default();
        let token = sessions.invite().unwrap();
        assert!(sessions.redeem("").is_none());
        assert!(sessions.redeem(&token[1..]).is_none());
        assert!(sessions.redeem(&token).is_some());
        assert!(sessions.redeem(&token).is_none());
    }

    #[test]
    fn a_session_is_its_path_and_its_cookie() {
        let sessions = Sessions::default();
        let enter = || sessions.redeem(&sessions.invite().unwrap()).unwrap();
        let (one, other) = (enter(), enter());
        let good = format!("a=b; longshore={}", one.secret);
        assert!(sessions.knows(&one.name, &cookies(&good)));
        assert!(!sessions.knows(&other.name, &cookies(&good)));
        assert!(!sessions.knows(&one.name, &cookies("longshore=")));
        assert!(!sessions.knows(&one.name, &[]));
        assert!(!sessions.knows("", &cookies(&good)));
    }

    #[test]
    fn old_sessions_make_room() {
        let sessions = Sessions::default();
        let enter = || sessions.redeem(&sessions.invite().unwrap()).unwrap();
        let first = enter();
        for _ in 0..MAX_SESSIONS {
            enter();
        }
        let cookie = format!("longshore={}", first.secret);
        assert!(!sessions.knows(&first.name, &cookies(&cookie)));
    }

    #[test]
    fn paths_are_split_after_the_session() {
        let table = [
            ("/s/abc/", Some(("abc", "/"))),
            ("/s/abc/api/v1/status", Some(("abc", "/api/v1/status"))),
            ("/s/abc", None),
            ("/api/v1/status", None),
            ("/s//x", Some(("", "/x"))),
        ];
        for (path, want) in table {
            let found = split(path);
            assert_eq!(
                found.as_ref().map(|(n, p)| (*n, p.as_str())),
                want,
                "{path}"
            );
        }
    }
}
