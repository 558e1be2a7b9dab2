//! What is pulled, in any of four layouts, and what is pushed, in one.
//!
//! Always: one module an artifact; it begins as WebAssembly does; what is pushed has the same digest whenever and wherever it was packed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::archive;
use crate::client::Client;
use crate::error::Error;
use crate::manifest::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, IMAGE_CONFIG, Manifest, OCI_INDEX, OCI_MANIFEST, Platform, SOLO_LAYER, WASM_CONFIG,
    WASM_LAYER, WasmConfig,
};
use crate::reference::{Digest, Reference};

/// How a module is laid into an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The CNCF's Wasm artifact: one layer of `application/wasm`. The one that is written.
    Cncf,
    /// The `oci` variant of solo.io's specification: a layer of `application/vnd.module.wasm.content.layer.v1+wasm`.
    Solo,
    /// The `compat` variant: an image whose last layer is an archive with `plugin.wasm`.
    Compat,
    /// The same as Docker writes it.
    Docker,
}

impl Layout {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cncf => "cncf",
            Self::Solo => "oci",
            Self::Compat => "compat",
            Self::Docker => "docker",
        }
    }
}

/// A module that was pulled.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The WebAssembly.
    pub module: Bytes,
    /// The digest of the manifest: what to pin.
    pub digest: Digest,
    /// How it was laid out.
    pub layout: Layout,
    /// What its packer noted.
    pub annotations: BTreeMap<String, String>,
}

impl Client {
    /// Brings the module that a reference names.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pull(&self, reference: &Reference) -> Result<Artifact, Error> {
        let (digest, manifest) = self.manifest(reference).await?;
        let not = |why: String| Error::NotAFilter { reference: reference.to_string(), why };
        let is_index = matches!(manifest.media_type.as_deref(), Some(OCI_INDEX | DOCKER_INDEX)) || !manifest.manifests.is_empty();
        let (image, manifest) = if is_index {
            let chosen = choose(&manifest).map_err(not)?;
            let image = reference.pinned(chosen.digest.parse().map_err(|error: crate::BadReference| not(error.to_string()))?);
            let (_, manifest) = self.manifest(&image).await?;
            if !manifest.manifests.is_empty() {
                return Err(not("its index leads to another index".into()));
            }
            (image, manifest)
        } else {
            (reference.clone(), manifest)
        };
        let (layout, layer) = layout(&manifest).map_err(not)?;
        if layout == Layout::Cncf {
            self.check_config(&image, &manifest, layer).await?;
        }
        let limit = self.limits().module;
        let bytes = self.blob(&image, layer, "the module", limit).await?;
        let module = match layout {
            Layout::Cncf | Layout::Solo => bytes,
            Layout::Compat | Layout::Docker => archive::module(&bytes, limit).map_err(not)?.into(),
        };
        if !module.starts_with(b"\0asm") {
            return Err(not("what its layer holds does not begin as WebAssembly does".into()));
        }
        Ok(Artifact { module, digest, layout, annotations: manifest.annotations })
    }

    async fn check_config(&self, reference: &Reference, manifest: &Manifest, layer: &Descriptor) -> Result<(), Error> {
        let Some(config) = &manifest.config else { return Ok(()) };
        let bytes = self.blob(reference, config, "the configuration", self.limits().manifest).await?;
        let not = |why: String| Error::NotAFilter { reference: reference.to_string(), why };
        let config: WasmConfig = serde_json::from_slice(&bytes).map_err(|error| not(format!("its configuration is none: {error}")))?;
        if config.architecture != "wasm" {
            return Err(not(format!("its configuration says that it is for {:?}, not for wasm", config.architecture)));
        }
        if !config.layer_digests.is_empty() && config.layer_digests != [layer.digest.clone()] {
            return Err(not("its configuration names other layers than its manifest".into()));
        }
        Ok(())
    }

    /// Puts a package there, and says under which digest.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn push(&self, reference: &Reference, package: &Package) -> Result<Digest, Error> {
        self.put_blob(reference, &package.config, "the configuration").await?;
        self.put_blob(reference, &package.module, "the module").await?;
        let digest = self.put_manifest(reference, package.manifest.clone()).await?;
        match reference.digest {
            Some(expected) if expected != digest => {
                let what = format!("the manifest of {reference}");
                Err(Error::Digest { host: reference.registry.clone(), what, expected, found: digest })
            }
            _ => Ok(digest),
        }
    }
}

/// The one manifest of an index that can be meant.
fn choose(index: &Manifest) -> Result<&Descriptor, String> {
    let is_wasm = |platform: &Platform| platform.architecture == "wasm" || platform.os.starts_with("wasi");
    let wasm: Vec<_> = index.manifests.iter().filter(|one| one.platform.as_ref().is_some_and(is_wasm)).collect();
    let attests = |one: &&Descriptor| one.annotations.contains_key("vnd.docker.reference.type");
    let images: Vec<_> = index.manifests.iter().filter(|one| !attests(one)).collect();
    match (wasm[..].first(), wasm.len(), &images[..]) {
        (Some(one), 1, _) | (None, _, [one]) => Ok(*one),
        _ => Err(format!("its index has {} images, of which {} are for wasm", index.manifests.len(), wasm.len())),
    }
}

/// Which layout a manifest has, and the layer with the module.
fn layout(manifest: &Manifest) -> Result<(Layout, &Descriptor), String> {
    let config = manifest.config.as_ref().map_or("", |config| config.media_type.as_str());
    let is_archive = |layer: &Descriptor| layer.media_type.contains(".tar");
    if config == WASM_CONFIG || manifest.layers.iter().any(|layer| layer.media_type == WASM_LAYER) {
        return match &manifest.layers[..] {
            [layer] if layer.media_type == WASM_LAYER => Ok((Layout::Cncf, layer)),
            [layer] => Err(format!("its layer is {:?}, not {WASM_LAYER}", layer.media_type)),
            layers => Err(format!("it has {} layers; a Wasm artifact has exactly one", layers.len())),
        };
    }
    let solo: Vec<_> = manifest.layers.iter().filter(|layer| layer.media_type == SOLO_LAYER).collect();
    match (&solo[..], manifest.layers.last()) {
        ([layer], _) => Ok((Layout::Solo, *layer)),
        ([_, ..], _) => Err(format!("it has {} modules; there must be one", solo.len())),
        ([], Some(layer)) if is_archive(layer) => {
            let is_docker =
                manifest.media_type.as_deref() == Some(DOCKER_MANIFEST) || layer.media_type.starts_with("application/vnd.docker.");
            Ok((if is_docker { Layout::Docker } else { Layout::Compat }, layer))
        }
        ([], Some(layer)) => Err(format!("its layout is unknown: configuration {config:?}, layer {:?}", layer.media_type)),
        ([], None) => Err("it has no layer".into()),
    }
}

/// A module, ready to be pushed or written.
#[derive(Clone, Debug)]
pub struct Package {
    module: Bytes,
    config: Bytes,
    manifest: Vec<u8>,
}

impl Package {
    /// The module in the CNCF's layout, with these annotations.
    ///
    /// # Errors
    /// Never for texts: the parts are JSON that cannot fail to be written.
    pub fn new(module: impl Into<Bytes>, annotations: BTreeMap<String, String>) -> Result<Self, serde_json::Error> {
        let module = module.into();
        let layer = descriptor(WASM_LAYER, &module);
        let config = WasmConfig { architecture: "wasm".into(), os: "wasip1".into(), layer_digests: vec![layer.digest.clone()] };
        let config = Bytes::from(serde_json::to_vec(&config)?);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            config: Some(descriptor(WASM_CONFIG, &config)),
            layers: vec![layer],
            manifests: Vec::new(),
            annotations,
        };
        let manifest = serde_json::to_vec(&manifest)?;
        Ok(Self { module, config, manifest })
    }

    /// The digest that it will have in a registry.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The files of an OCI image layout, by their paths: what `oras`, `skopeo` and others copy to registries.
    ///
    /// # Errors
    /// As [`Package::new`].
    pub fn files(&self, tag: &str) -> Result<Vec<(String, Bytes)>, serde_json::Error> {
        let mut entry = descriptor(OCI_MANIFEST, &self.manifest);
        entry.annotations.insert("org.opencontainers.image.ref.name".into(), tag.to_owned());
        entry.platform = Some(Platform { architecture: "wasm".into(), os: "wasip1".into() });
        let index = Manifest {
            schema_version: 2,
            media_type: Some(OCI_INDEX.into()),
            config: None,
            layers: Vec::new(),
            manifests: vec![entry],
            annotations: BTreeMap::new(),
        };
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        Ok(vec![
            ("oci-layout".into(), Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)),
            ("index.json".into(), serde_json::to_vec(&index)?.into()),
            (blob(&self.config), self.config.clone()),
            (blob(&self.module), self.module.clone()),
            (blob(&self.manifest), self.manifest.clone().into()),
        ])
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
        platform: None,
    }
}

/// The configuration of an image that is none: what cosign writes for signatures.
pub(crate) fn empty_config() -> (Bytes, Descriptor) {
    let bytes = Bytes::from_static(br#"{"architecture":"","config":{},"created":"0001-01-01T00:00:00Z","history":[],"os":"","rootfs":{"diff_ids":[],"type":"layers"}}"#);
    let part = descriptor(IMAGE_CONFIG, &bytes);
    (bytes, part)
}
