//! Signatures as cosign keeps them: an artifact of their own beside the one they are for, under the tag `sha256-DIGEST.sig`, a layer a signature.
//!
//! Always: verified is the payload that was signed, and that it is for this very manifest; a registry that serves nothing, or something else, verifies
//! nothing. What it does not do: transparency logs, certificates, identities: the key is all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::artifact::{descriptor, empty_config};
use crate::client::Client;
use crate::error::Error;
use crate::key::{Key, PublicKey};
use crate::manifest::{Manifest, OCI_MANIFEST, SIGNED};
use crate::reference::{Digest, Reference};

/// Where a layer has its signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Signatures that are looked at.
const MOST: usize = 64;
/// Of a payload.
const MOST_BYTES: u64 = 64 << 10;

impl Client {
    /// Signs the manifest of this digest, beside signatures that there may be.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn sign(&self, reference: &Reference, digest: Digest, key: &Key) -> Result<(), Error> {
        let unsigned = |why: String| Error::Signature { reference: reference.to_string(), why };
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": reference.name()},
                "image": {"docker-manifest-digest": digest.to_string()},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = Bytes::from(payload.to_string());
        let signature = key.sign(&payload).map_err(|error| unsigned(error.to_string()))?;
        let place = reference.signatures(digest);
        let mut manifest = match self.manifest(&place).await {
            Ok((_, manifest)) => manifest,
            Err(Error::NotFound { .. }) => {
                let (config, part) = empty_config();
                self.put_blob(&place, &config, "the configuration").await?;
                Manifest {
                    schema_version: 2,
                    media_type: Some(OCI_MANIFEST.into()),
                    config: Some(part),
                    layers: Vec::new(),
                    manifests: Vec::new(),
                    annotations: std::collections::BTreeMap::new(),
                }
            }
            Err(other) => return Err(other),
        };
        if manifest.layers.len() >= MOST {
            return Err(unsigned(format!("there are {MOST} signatures already")));
        }
        let mut layer = descriptor(SIGNED, &payload);
        layer.annotations.insert(SIGNATURE.into(), STANDARD.encode(signature));
        manifest.layers.push(layer);
        self.put_blob(&place, &payload, "the signature").await?;
        let manifest = serde_json::to_vec(&manifest).map_err(|error| unsigned(error.to_string()))?;
        self.put_manifest(&place, manifest).await.map(drop)
    }

    /// Passes if the manifest of this digest was signed with the key.
    ///
    /// # Errors
    /// [`Error::Signature`] if it was not; others if that cannot be known. Both mean: do not use it.
    pub async fn verify(&self, reference: &Reference, digest: Digest, key: &PublicKey) -> Result<(), Error> {
        let unsigned = |why: String| Error::Signature { reference: reference.pinned(digest).to_string(), why };
        let place = reference.signatures(digest);
        let (_, manifest) = match self.manifest(&place).await {
            Err(Error::NotFound { .. }) => return Err(unsigned("it has no signature".into())),
            other => other?,
        };
        let signed: Vec<_> = manifest.layers.iter().filter(|layer| layer.media_type == SIGNED).take(MOST).collect();
        let mut why = format!("none of its {} signatures is", signed.len());
        for layer in &signed {
            let payload = self.blob(&place, layer, "a signature", MOST_BYTES).await?;
            let signature = layer.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
            if !key.verifies(&payload, &signature) {
                continue;
            }
            match is_about(&payload, digest) {
                true => return Ok(()),
                // Somebody has moved a good signature to where it does not belong.
                false => why = "a signature of this key lies there, but it is for another artifact".into(),
            }
        }
        Err(unsigned(why))
    }
}

fn is_about(payload: &[u8], digest: Digest) -> bool {
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return false };
    let critical = &payload["critical"];
    critical["type"] == "cosign container image signature" && critical["image"]["docker-manifest-digest"] == digest.to_string()
}
