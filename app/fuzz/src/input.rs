//! Choices read from an input, front to back.

/// What is left of an input; everything is zero once it has ended.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next step's first byte, none at the end.
    pub fn step(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn byte(&mut self) -> u8 {
        self.step().unwrap_or(0)
    }

    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    pub fn long(&mut self) -> u64 {
        u64::from(self.word()) | u64::from(self.word()) << 32
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// An index into a list, none when the list is empty.
    pub fn index(&mut self, length: usize) -> Option<usize> {
        let byte = usize::from(self.byte());
        (length > 0).then(|| byte % length)
    }
}
