//! Numbers of few bytes: seven bits a byte, the lowest first, the top bit says that more follow (LEB128). Pure.

/// Adds a number.
pub(super) fn push_unsigned(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Adds a number that may be below zero; near zero it is short on both sides.
pub(super) fn push_signed(bytes: &mut Vec<u8>, number: i64) {
    let folded = (number << 1) ^ (number >> 63);
    push_unsigned(bytes, u64::from_ne_bytes(folded.to_ne_bytes()));
}

/// Takes numbers from bytes.
#[derive(Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next number; `None` when the bytes end before it does, or when it has more than 64 bits.
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits {
                return None;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next number that [`push_signed`] added.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let folded = self.unsigned()?;
        let magnitude = i64::from_ne_bytes((folded >> 1).to_ne_bytes());
        Some(if folded & 1 == 0 { magnitude } else { !magnitude })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bytes in
            [&[][..], &[0x80], &[0xff; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(Reader::new(bytes).unsigned(), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(unsigned in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            push_unsigned(&mut bytes, unsigned);
            push_signed(&mut bytes, signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!((reader.unsigned(), reader.signed()), (Some(unsigned), Some(signed)));
            prop_assert_eq!(reader.unsigned(), None);
        }
    }
}
