//! Credentials that the client gives over a stream when a registry asks.

use longshore_supervisor_api::types::transfer::{AuthRequest, AuthResponse, AuthType};
use tokio::sync::Mutex;

use crate::streams::{ClientStream, any, from_any};
use longshore_registry::{CredentialSource, Credentials, Error, Result};

pub struct StreamCredentials {
    stream: Mutex<ClientStream>,
    reference: String,
}

impl StreamCredentials {
    pub fn new(stream: ClientStream, reference: &str) -> Self {
        Self {
            stream: Mutex::new(stream),
            reference: reference.into(),
        }
    }
}

#[tonic::async_trait]
impl CredentialSource for StreamCredentials {
    async fn credentials(&self, host: &str, challenges: &[String]) -> Result<Credentials> {
        let request = AuthRequest {
            host: host.into(),
            reference: self.reference.clone(),
            wwwauthenticate: challenges.to_vec(),
        };
        let mut stream = self.stream.lock().await;
        let gone = || Error::Unavailable("the client's credential stream ended".into());
        stream
            .outgoing
            .send(Ok(any(&request)))
            .await
            .map_err(|_| gone())?;
        let answer = stream
            .incoming
            .message()
            .await
            .map_err(|_| gone())?
            .ok_or_else(gone)?;
        let answer: AuthResponse =
            from_any(&answer).map_err(|error| Error::Other(error.to_string()))?;
        Ok(match AuthType::try_from(answer.auth_type) {
            Ok(AuthType::Credentials) => Credentials::Basic {
                username: answer.username,
                secret: answer.secret,
            },
            Ok(AuthType::Refresh) => Credentials::Refresh(answer.secret),
            Ok(AuthType::Header) => Credentials::Header(answer.secret),
            _ => Credentials::Anonymous,
        })
    }
}
