//! A GGUF file's bytes as they arrive: what is held of them is the header, and then the tensor in progress.

use super::{GgufHeader, TensorPlace, refuse_html};
use crate::model::ModelError;

/// Bytes after which the header is first looked for.
const FIRST_LOOK_BYTES: usize = 256;
/// The largest size that is believed before the file has ended: what WebAssembly can address.
const MAX_TOLD_BYTES: u64 = 4 << 30;

/// Room for what arrives together with a tensor's last bytes.
const NEXT_BYTES: usize = 1 << 20;

/// A GGUF file that arrives.
pub struct GgufStream {
    /// How long the file is said to be; it may be wrong.
    told_bytes: Option<u64>,
    /// Bytes that have arrived.
    n_bytes: u64,
    /// Whether they are all.
    is_whole: bool,
    /// The last of them, as far as they may still be needed.
    held: Vec<u8>,
    /// How many of those have been taken.
    n_taken: usize,
    /// How many are held when the header is looked for again.
    next_look: usize,
    /// The tensors to come, in the order of the file; none is known before the header is.
    places: Option<std::iter::Peekable<std::vec::IntoIter<TensorPlace>>>,
}

impl GgufStream {
    /// Nothing has arrived. A file whose size is not told is held whole before its header is read.
    pub fn new(told_bytes: Option<u64>) -> Self {
        Self {
            told_bytes: told_bytes.map(|size_bytes| size_bytes.min(MAX_TOLD_BYTES)),
            n_bytes: 0,
            is_whole: false,
            held: Vec::new(),
            n_taken: 0,
            next_look: FIRST_LOOK_BYTES,
            places: None,
        }
    }

    /// The next bytes of the file.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        self.n_bytes += bytes.len() as u64;
        let Some(places) = &mut self.places else { return self.hold(bytes, 0) };
        // What follows the last tensor is of no use.
        let Some(place) = places.peek() else { return self.held = Vec::new() };
        let n_wanted = place.bytes.end.saturating_sub(self.n_bytes);
        self.hold(bytes, usize::try_from(n_wanted).unwrap_or(usize::MAX));
    }

    /// Holds bytes, and makes room for so many more of a tensor at once, so that the vector never has twice what it needs.
    fn hold(&mut self, bytes: Vec<u8>, n_wanted: usize) {
        if self.n_taken > 0 {
            // Leaves the memory of a large tensor.
            self.held = self.held.split_off(std::mem::take(&mut self.n_taken));
        }
        if self.held.is_empty() {
            return self.held = bytes;
        }
        if self.places.is_some() && self.held.capacity() < self.held.len() + bytes.len() {
            // A size that cannot be had is not believed: the vector grows by itself.
            let n_more = bytes.len().saturating_add(n_wanted).saturating_add(NEXT_BYTES);
            let _ = self.held.try_reserve_exact(n_more);
        }
        self.held.extend_from_slice(&bytes);
    }

    /// No more bytes come.
    pub fn end(&mut self) {
        self.is_whole = true;
    }

    /// The header, once it is there; each file has one.
    pub fn header(&mut self) -> Result<Option<GgufHeader>, ModelError> {
        if self.places.is_some() || (!self.is_whole && self.held.len() < self.next_look) {
            return Ok(None);
        }
        self.next_look = 2 * self.held.len();
        refuse_html(&self.held)?;
        if !self.held.starts_with(b"GGUF") {
            let start = String::from_utf8_lossy(&self.held[..self.held.len().min(4)]).into_owned();
            return Err(ModelError::NotGguf(format!("it starts with {start:?} instead of \"GGUF\"")));
        }
        // One byte more than there is: what is not believed is not the end.
        let told_bytes = self.told_bytes.map(|told_bytes| told_bytes.max(self.n_bytes + 1));
        let size_bytes = if self.is_whole { Some(self.n_bytes) } else { told_bytes };
        let Some(size_bytes) = size_bytes else { return Ok(None) };
        let mut header = GgufHeader::read(&self.held, size_bytes)?;
        if let Some(header) = &mut header {
            self.places = Some(std::mem::take(&mut header.places).into_iter().peekable());
        }
        Ok(header)
    }

    /// The next tensor that is whole, and its bytes; `None` when more have to arrive, or none is left. Fails when the file has ended
    /// within a tensor.
    pub fn next_tensor(&mut self) -> Result<Option<(TensorPlace, &[u8])>, ModelError> {
        let Some(places) = &mut self.places else { return Ok(None) };
        let Some(place) = places.peek() else { return Ok(None) };
        let at = |position: u64| {
            let before_held = self.n_bytes - self.held.len() as u64;
            usize::try_from(position - before_held).unwrap_or(usize::MAX).min(self.held.len())
        };
        self.n_taken = at(place.bytes.start);
        if place.bytes.end > self.n_bytes {
            let name = super::tensor_name(place.weight);
            let told =
                format!("tensor {name} ends at byte {}, the file at {}", place.bytes.end, self.n_bytes);
            return if self.is_whole { Err(ModelError::Truncated(told)) } else { Ok(None) };
        }
        let (start, end) = (self.n_taken, at(place.bytes.end));
        self.n_taken = end;
        Ok(places.next().map(|place| (place, &self.held[start..end])))
    }
}
