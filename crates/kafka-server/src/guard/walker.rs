//! The walker: one pass over a request's bytes along a skeleton.

use thiserror::Error;

/// What a field looks like on the wire. Every string, byte string and array may be null: the codec knows which may not.
#[derive(Debug)]
pub(crate) enum Kind {
    /// So many bytes, whatever they mean.
    Fixed(usize),
    /// A string.
    Str,
    /// A byte string.
    Bytes,
    /// Strings or numbers.
    List(&'static Kind),
    /// Structs.
    Array(&'static [Field]),
    /// One struct.
    Struct(&'static [Field]),
    /// One struct, or null.
    Optional(&'static [Field]),
}

/// A field of a struct and the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    pub kind: Kind,
    pub first: i16,
    pub last: i16,
    /// In the tag section, under this tag.
    pub tag: Option<u32>,
}

/// A request.
#[derive(Debug)]
pub(crate) struct Skeleton {
    pub key: i16,
    /// First version with compact lengths and tag sections.
    pub flexible_from: i16,
    pub fields: &'static [Field],
}

/// Bytes that are no such request.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    #[error("the request ends before its last field")]
    Truncated,
    #[error("a length of {0} is not possible")]
    BadLength(i64),
    #[error("an array of {count} elements can't be in {remaining} bytes")]
    ArrayTooLong { count: usize, remaining: usize },
    #[error("more than {UNKNOWN_TAGS_MAX} unknown tagged fields")]
    TooManyTags,
    #[error("a tagged field is longer or shorter than it says")]
    BadTag,
    #[error("a string is not UTF-8")]
    BadString,
    #[error("a variable-length number does not end")]
    BadVarint,
    #[error("decoding it would take {estimate} bytes of memory for {len} bytes")]
    TooMuchMemory { estimate: usize, len: usize },
    #[error("it asks for {0} things at once: ask for fewer")]
    TooManyParts(usize),
    #[error("the request has no skeleton")]
    NoSkeleton,
}

/// Tagged fields that nobody knows, per request: clients that are ahead of us by a few proposals send a handful.
pub(crate) const UNKNOWN_TAGS_MAX: usize = 32;
/// Memory that a decoded request may take, per byte of its frame: names of three letters reach this, nothing useful exceeds it.
const MEMORY_PER_BYTE_MAX: usize = 16;
/// Memory that any request may take, bytes.
const MEMORY_FREE: usize = 32 * 1024;

/// Sizes of the codec's types: a string or byte string, a vector, the map of unknown tags of each struct, and one node of such a map.
const STRING_SIZE: usize = 32;
const VEC_SIZE: usize = 24;
const TAG_MAP_SIZE: usize = 24;
const TAG_NODE_SIZE: usize = 512;
const WORD: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    bytes: &'a [u8],
    position: usize,
    version: i16,
    flexible: bool,
    unknown_tags: usize,
    parts: usize,
    memory: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(bytes: &'a [u8], position: usize, version: i16, flexible: bool) -> Self {
        Self { bytes, position, version, flexible, unknown_tags: 0, parts: 0, memory: 0 }
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// Elements of all arrays so far.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// What decoding will allocate; an error if that is out of proportion.
    pub(crate) fn estimate(&self) -> Result<usize, Malformed> {
        let (estimate, len) = (self.memory, self.bytes.len());
        if estimate > len.saturating_mul(MEMORY_PER_BYTE_MAX).saturating_add(MEMORY_FREE) {
            return Err(Malformed::TooMuchMemory { estimate, len });
        }
        Ok(estimate)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(len).ok_or(Malformed::Truncated)?;
        let taken = self.bytes.get(self.position..end).ok_or(Malformed::Truncated)?;
        self.position = end;
        Ok(taken)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::Truncated)
    }

    /// At most five bytes, as Kafka reads them.
    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = self.array::<1>()?[0];
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::BadVarint)
    }

    /// A length as Kafka writes it: `None` for null. Flexible versions carry it plus one in a varint.
    fn compact_or(&mut self, plain: fn(&mut Self) -> Result<i32, Malformed>) -> Result<Option<usize>, Malformed> {
        let len = if self.flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(plain(self)?) };
        match len {
            -1 => Ok(None),
            0.. => usize::try_from(len).map(Some).map_err(|_| Malformed::BadLength(len)),
            _ => Err(Malformed::BadLength(len)),
        }
    }

    /// Length of a string.
    pub(crate) fn nullable_str(&mut self) -> Result<Option<&'a str>, Malformed> {
        let Some(len) = self.compact_or(|walker| walker.i16().map(i32::from))? else { return Ok(None) };
        std::str::from_utf8(self.take(len)?).map(Some).map_err(|_| Malformed::BadString)
    }

    /// Length of a byte string.
    pub(crate) fn bytes_len(&mut self) -> Result<Option<usize>, Malformed> {
        self.compact_or(Self::i32)
    }

    /// Count of an array whose elements take at least `min_size` bytes each.
    pub(crate) fn array_count(&mut self, min_size: usize) -> Result<usize, Malformed> {
        let count = self.compact_or(Self::i32)?.unwrap_or(0);
        let remaining = self.remaining();
        if count > remaining / min_size.max(1) {
            return Err(Malformed::ArrayTooLong { count, remaining });
        }
        self.parts += count;
        Ok(count)
    }

    /// Walks one struct.
    pub(crate) fn fields(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.tag.is_none() && self.has(field) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible {
            self.tags(fields)?;
        }
        Ok(())
    }

    /// Walks a tag section: the tags of `fields` by their kind, others are skipped.
    pub(crate) fn tags(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let len = self.unsigned_varint()? as usize;
            if len > self.remaining() {
                return Err(Malformed::Truncated);
            }
            let end = self.position + len;
            match fields.iter().find(|field| field.tag == Some(tag) && self.has(field)) {
                Some(field) => self.kind(&field.kind)?,
                None => {
                    self.unknown_tags += 1;
                    if self.unknown_tags > UNKNOWN_TAGS_MAX {
                        return Err(Malformed::TooManyTags);
                    }
                    self.memory += TAG_NODE_SIZE;
                    self.position = end;
                }
            }
            if self.position != end {
                return Err(Malformed::BadTag);
            }
        }
        Ok(())
    }

    fn has(&self, field: &Field) -> bool {
        (field.first..=field.last).contains(&self.version)
    }

    fn kind(&mut self, kind: &'static Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Fixed(len) => self.take(*len).map(drop),
            Kind::Str => self.nullable_str().map(drop),
            Kind::Bytes => match self.bytes_len()? {
                Some(len) => self.take(len).map(drop),
                None => Ok(()),
            },
            Kind::List(element) => {
                let count = self.array_count(self.min_size(element))?;
                self.memory += count * memory_of(element);
                (0..count).try_for_each(|_| self.kind(element))
            }
            Kind::Array(fields) => {
                let count = self.array_count(self.min_struct_size(fields))?;
                self.memory += count * struct_memory(fields);
                (0..count).try_for_each(|_| self.fields(fields))
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => match self.i8()? {
                ..0 => Ok(()),
                _ => self.fields(fields),
            },
        }
    }

    /// Fewest bytes that a value can take.
    fn min_size(&self, kind: &Kind) -> usize {
        match kind {
            Kind::Fixed(len) => *len,
            Kind::Str if !self.flexible => 2,
            Kind::Bytes | Kind::List(_) | Kind::Array(_) if !self.flexible => 4,
            Kind::Str | Kind::Bytes | Kind::List(_) | Kind::Array(_) | Kind::Optional(_) => 1,
            Kind::Struct(fields) => self.min_struct_size(fields),
        }
    }

    fn min_struct_size(&self, fields: &[Field]) -> usize {
        let plain: usize =
            fields.iter().filter(|field| field.tag.is_none() && self.has(field)).map(|field| self.min_size(&field.kind)).sum();
        plain + usize::from(self.flexible)
    }
}

/// Memory of a decoded value, without what it points to.
fn memory_of(kind: &Kind) -> usize {
    match kind {
        Kind::Fixed(len) => *len,
        Kind::Str | Kind::Bytes => STRING_SIZE,
        Kind::List(_) | Kind::Array(_) => VEC_SIZE,
        Kind::Struct(fields) | Kind::Optional(fields) => struct_memory(fields),
    }
}

/// Memory of a decoded struct: all fields, whatever the version.
fn struct_memory(fields: &[Field]) -> usize {
    let fields: usize = fields.iter().map(|field| memory_of(&field.kind)).sum();
    fields.next_multiple_of(WORD) + TAG_MAP_SIZE
}
