//! The encoders: bytes in, compressed bytes out, as they come.

use std::io::Write;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::{Compress, Encoding};

/// How far back brotli looks: 256 KiB. More memory for less gain than a response has.
const BROTLI_WINDOW: i32 = 18;
/// What brotli writes at once.
const BROTLI_BUFFER: usize = 4 << 10;

/// A response being compressed.
pub(crate) enum Encoder {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Br(_) => "Br",
            Self::Gzip(_) => "Gzip",
        })
    }
}

impl Encoder {
    pub(crate) fn new(encoding: Encoding, config: &Compress) -> Self {
        match encoding {
            Encoding::Gzip => Self::Gzip(Box::new(GzEncoder::new(Vec::new(), Compression::new(config.gzip_level)))),
            Encoding::Br => {
                let quality = i32::try_from(config.brotli_level).unwrap_or_default();
                let params = BrotliEncoderParams { quality, lgwin: BROTLI_WINDOW, ..BrotliEncoderParams::default() };
                Self::Br(Box::new(CompressorWriter::with_params(Vec::new(), BROTLI_BUFFER, &params)))
            }
        }
    }

    /// Takes a piece. What comes out, which is all of it if `flush`. Writing to memory does not fail.
    pub(crate) fn write(&mut self, piece: &[u8], flush: bool) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Br(encoder) => {
                encoder.write_all(piece)?;
                if flush {
                    encoder.flush()?;
                }
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                if flush {
                    encoder.flush()?;
                }
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// What is left.
    pub(crate) fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Br(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}
