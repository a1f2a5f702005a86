//! Base62: bytes as letters and digits, for tokens that people select with a double click. A number of bytes always has
//! the same number of characters, and only one text.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The character of a digit below 62.
#[must_use]
pub(super) fn digit(value: usize) -> char {
    char::from(DIGITS[value % 62])
}

/// How many characters so many bytes have.
#[must_use]
pub(super) const fn length(bytes: usize) -> usize {
    // log2(62) is a little more than 5.954.
    (bytes * 8 * 1000).div_ceil(5954)
}

/// The bytes as text.
#[must_use]
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut rest = bytes.to_vec();
    let mut out = vec!['0'; length(bytes.len())];
    for slot in out.iter_mut().rev() {
        let mut carry = 0;
        for byte in &mut rest {
            let value = carry * 256 + usize::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or_default();
            carry = value % 62;
        }
        *slot = digit(carry);
    }
    out.into_iter().collect()
}

/// The `N` bytes of a text; none when it is not the text of any.
#[must_use]
pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != length(N) {
        return None;
    }
    let mut out = [0; N];
    for character in text.bytes() {
        let mut carry = DIGITS.iter().position(|digit| *digit == character)?;
        for byte in out.iter_mut().rev() {
            let value = usize::from(*byte) * 62 + carry;
            *byte = u8::try_from(value % 256).unwrap_or_default();
            carry = value / 256;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_number_fits_and_the_next_one_does_not() {
        let largest = encode(&[255; 84]);
        assert_eq!((largest.len(), decode::<84>(&largest)), (length(84), Some([255; 84])));
        assert_eq!(decode::<84>(&"z".repeat(length(84))), None);
        assert_eq!(encode(&[0; 84]), "0".repeat(length(84)));
    }

    proptest! {
        #[test]
        fn bytes_read_back(bytes in any::<[u8; 20]>()) {
            prop_assert_eq!(decode::<20>(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn a_text_that_reads_is_the_text_of_what_was_read(text in "[0-9A-Za-z_é]{27}") {
            if let Some(bytes) = decode::<20>(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
