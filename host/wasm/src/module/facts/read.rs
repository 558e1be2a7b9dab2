//! Reads the sections of a binary, keeping a bounded part of each.

use std::sync::Arc;

use wasmparser::{BinaryReaderError, ExternalKind, Payload, TypeRef};

use super::{Export, Import, ItemType, Memory, Signature};
use crate::error::{Bare, LoadFault};

/// Limits on what is kept of a binary: far above every real module, far below what hurts.
const MAX_TYPES: usize = 100_000;
const MAX_FUNCTIONS: usize = 1_000_000;
pub(super) const MAX_ITEMS: usize = 100_000;
const MAX_NAME_BYTES: usize = 8 << 20;

impl From<BinaryReaderError> for LoadFault {
    fn from(error: BinaryReaderError) -> Self {
        Self::Malformed {
            offset: error.offset() as u64,
            cause: error.message().to_owned(),
        }
    }
}

fn over(what: &str, limit: usize) -> LoadFault {
    LoadFault::Malformed {
        offset: 0,
        cause: format!("more than {limit} {what}"),
    }
}

/// Collects sections; every collection is bounded.
#[derive(Default)]
pub(super) struct Reader {
    types: Vec<Arc<Signature>>,
    /// The type of every function, imported ones first.
    functions: Vec<u32>,
    pub(super) imports: Vec<Import>,
    pub(super) exports: Vec<Export>,
    pub(super) memories: Vec<Memory>,
    pub(super) custom: Vec<Box<str>>,
    pub(super) has_start: bool,
    name_bytes: usize,
}

impl Reader {
    pub(super) fn payload(&mut self, payload: Payload<'_>) -> Result<(), LoadFault> {
        match payload {
            Payload::TypeSection(section) => {
                for ty in section.into_iter_err_on_gc_types() {
                    let ty = ty?;
                    bounded(self.types.len(), MAX_TYPES, "types")?;
                    self.types
                        .push(Arc::new(Signature::new(ty.params(), ty.results())));
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(import?)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    bounded(self.functions.len(), MAX_FUNCTIONS, "functions")?;
                    self.functions.push(ty?);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    bounded(self.memories.len(), MAX_ITEMS, "memories")?;
                    self.memories.push(Memory::from(memory?));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    self.export(export?)?;
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::CustomSection(section) => {
                bounded(self.custom.len(), MAX_ITEMS, "custom sections")?;
                let name = self.name(section.name())?;
                self.custom.push(name);
            }
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, import: wasmparser::Import<'_>) -> Result<(), LoadFault> {
        bounded(self.imports.len(), MAX_ITEMS, "imports")?;
        let ty = match import.ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                bounded(self.functions.len(), MAX_FUNCTIONS, "functions")?;
                self.functions.push(index);
                ItemType::Function(self.signature(index)?)
            }
            TypeRef::Memory(_) => ItemType::Memory,
            TypeRef::Table(_) => ItemType::Other("table"),
            TypeRef::Global(_) => ItemType::Other("global"),
            TypeRef::Tag(_) => ItemType::Other("tag"),
        };
        let (module, name) = (self.name(import.module)?, self.name(import.name)?);
        self.imports.push(Import { module, name, ty });
        Ok(())
    }

    fn export(&mut self, export: wasmparser::Export<'_>) -> Result<(), LoadFault> {
        bounded(self.exports.len(), MAX_ITEMS, "exports")?;
        let ty = match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                let ty = self.functions.get(export.index as usize).copied();
                let ty = ty.ok_or_else(|| LoadFault::Malformed {
                    offset: 0,
                    cause: format!(
                        "export {} is function {}, which does not exist",
                        Bare(export.name),
                        export.index
                    ),
                })?;
                ItemType::Function(self.signature(ty)?)
            }
            ExternalKind::Memory => ItemType::Memory,
            ExternalKind::Table => ItemType::Other("table"),
            ExternalKind::Global => ItemType::Other("global"),
            ExternalKind::Tag => ItemType::Other("tag"),
        };
        let name = self.name(export.name)?;
        self.exports.push(Export { name, ty });
        Ok(())
    }

    fn signature(&self, index: u32) -> Result<Arc<Signature>, LoadFault> {
        self.types
            .get(index as usize)
            .cloned()
            .ok_or_else(|| LoadFault::Malformed {
                offset: 0,
                cause: format!("type {index} does not exist"),
            })
    }

    fn name(&mut self, name: &str) -> Result<Box<str>, LoadFault> {
        self.name_bytes += name.len();
        bounded(self.name_bytes, MAX_NAME_BYTES, "bytes of names")?;
        Ok(name.into())
    }
}

fn bounded(have: usize, limit: usize, what: &str) -> Result<(), LoadFault> {
    if have < limit {
        Ok(())
    } else {
        Err(over(what, limit))
    }
}

impl From<wasmparser::MemoryType> for Memory {
    fn from(ty: wasmparser::MemoryType) -> Self {
        let page = 1u64
            .checked_shl(ty.page_size_log2.unwrap_or(16))
            .unwrap_or(u64::MAX);
        Self {
            minimum: ty.initial.saturating_mul(page),
            maximum: ty.maximum.map(|pages| pages.saturating_mul(page)),
            shared: ty.shared,
            wide: ty.memory64,
        }
    }
}
