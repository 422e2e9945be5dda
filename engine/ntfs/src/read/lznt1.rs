//! LZNT1, the compression of NTFS streams ([MS-XCA] section 2.5): 4 KiB chunks, each independent.

/// Bytes of output per chunk.
const CHUNK: usize = 4096;
/// Chunk header: low 12 bits = bytes that follow - 1, three signature bits, top bit = compressed.
const HEADER_SIZE_MASK: u16 = 0x0FFF;
const HEADER_COMPRESSED: u16 = 0x8000;

/// Decompresses one compression unit; output beyond the input's end is zero.
///
/// `Err` carries the input offset of the damage.
pub(super) fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), usize> {
    output.fill(0);
    let mut at = 0;
    for chunk in output.chunks_mut(CHUNK) {
        let Some(header) = input.get(at..at + 2) else { return Ok(()) };
        let header = u16::from_le_bytes([header[0], header[1]]);
        if header == 0 {
            return Ok(());
        }
        let body_at = at + 2;
        let body_end = body_at + usize::from(header & HEADER_SIZE_MASK) + 1;
        let body = input.get(body_at..body_end).ok_or(at)?;
        if header & HEADER_COMPRESSED != 0 {
            decompress_chunk(body, chunk).map_err(|inner| body_at + inner)?;
        } else {
            chunk.get_mut(..body.len()).ok_or(at)?.copy_from_slice(body);
        }
        at = body_end;
    }
    Ok(())
}

fn decompress_chunk(body: &[u8], chunk: &mut [u8]) -> Result<(), usize> {
    let (mut at, mut out) = (0, 0);
    while let Some(&flags) = body.get(at) {
        at += 1;
        for bit in 0..8 {
            if at >= body.len() {
                return Ok(());
            }
            if flags >> bit & 1 == 0 {
                *chunk.get_mut(out).ok_or(at)? = body[at];
                (at, out) = (at + 1, out + 1);
                continue;
            }
            let token = body.get(at..at + 2).ok_or(at)?;
            let token = u16::from_le_bytes([token[0], token[1]]);
            if out == 0 {
                return Err(at);
            }
            // The split between distance and length moves with the place in the chunk: the distance
            // has as many bits as the largest possible one needs, but at least four.
            let distance_bits = (usize::BITS - (out - 1).leading_zeros()).max(4);
            let length_bits = 16 - distance_bits;
            let distance = usize::from(token >> length_bits) + 1;
            let length = usize::from(token & ((1 << length_bits) - 1)) + 3;
            if distance > out || out + length > chunk.len() {
                return Err(at);
            }
            // Source and target may overlap: that is how repetitions are written.
            for _ in 0..length {
                chunk[out] = chunk[out - distance];
                out += 1;
            }
            at += 2;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dray_base::entropy::{Entropy, Seeded};

    /// The worked example of [MS-XCA] section 3.3.
    #[test]
    fn judge_ms_xca_example_decompresses() {
        let packed = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let plain = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        let mut out = [0xFF; 4096];
        decompress(&packed, &mut out).unwrap();
        assert_eq!(&out[..plain.len()], plain);
        assert!(out[plain.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn hostile_input_never_panics() {
        let mut seed = Seeded::new(7);
        let mut out = vec![0; 65536];
        for round in 0..20_000 {
            let len = (seed.next_u64() % 600) as usize;
            let mut input = vec![0; len];
            seed.fill(&mut input);
            if len > 2 && round % 2 == 0 {
                input[1] = 0xB0 | input[1] & 0x03;
                input[2] = 0;
            }
            let _ = decompress(&input, &mut out);
        }
    }
}
