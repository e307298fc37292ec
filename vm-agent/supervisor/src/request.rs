//! Who a request is for: the namespace, lease and trace that arrive in gRPC metadata.

use longshore_supervisor_api::{LEASE_HEADER, NAMESPACE_HEADER};
use tonic::metadata::MetadataMap;

use crate::error::{Error, Result};

/// The scope of one request.
#[derive(Clone, Debug)]
pub struct Scope {
    pub namespace: String,
    /// New resources are added to this lease.
    pub lease: Option<String>,
    /// W3C trace context, passed on to the shim.
    pub traceparent: Option<String>,
}

impl Scope {
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self> {
        Self::from_metadata(request.metadata())
    }

    pub fn from_metadata(metadata: &MetadataMap) -> Result<Self> {
        let text = |key: &str| {
            metadata
                .get(key)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let namespace = text(NAMESPACE_HEADER)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| Error::FailedPrecondition("namespace is required".into()))?;
        validate_identifier(&namespace)?;
        Ok(Self {
            namespace,
            lease: text(LEASE_HEADER),
            traceparent: text("traceparent"),
        })
    }

    pub fn in_namespace(namespace: &str) -> Self {
        Self {
            namespace: namespace.into(),
            lease: None,
            traceparent: None,
        }
    }
}

/// containerd's identifiers: they become path components, so this is also what keeps paths safe.
pub fn validate_identifier(name: &str) -> Result<()> {
    let part_ok = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if name.is_empty() {
        return Err(Error::InvalidArgument(
            "identifier must not be empty".into(),
        ));
    }
    if name.len() > 76 {
        return Err(Error::InvalidArgument(format!(
            "identifier {name:?} greater than maximum length (76 characters)"
        )));
    }
    if !name.split(['.', '_', '-']).all(part_ok) {
        return Err(Error::InvalidArgument(format!(
            "identifier {name:?} must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::validate_identifier;

    #[test]
    fn identifiers() {
        for good in ["moby", "k8s.io", "a-b_c.d", "0123456789abcdef"] {
            assert!(validate_identifier(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "-a", "a..b", "a.", "é", &"x".repeat(77)] {
            assert!(validate_identifier(bad).is_err(), "{bad}");
        }
    }
}
