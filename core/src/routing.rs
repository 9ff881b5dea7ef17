//! From a key to its partition and its node: fixed functions of the key's bytes, the same on every machine and in
//! every version.
//!
//! The hash is XXH3-64 with seed 0 (Yann Collet, xxHash specification). It is not secret, so it never orders anything
//! inside a partition; tables there use a hash of their own with a seed per process.

use twox_hash::XxHash3_64;

/// The routing hash of a key.
#[must_use]
pub fn route(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// The partition, out of 2 to the power of `log2`, that a hash belongs to: its top `log2` bits.
///
/// Because they are the top bits, doubling the number of partitions splits each one into two neighbours and moves
/// nothing else. With `log2` 0 there is one partition, number 0; above 64 it counts as 64.
#[must_use]
pub fn partition_of(hash: u64, log2: u32) -> usize {
    let top = hash
        .checked_shr(u64::BITS.saturating_sub(log2))
        .unwrap_or(0);
    usize::try_from(top).unwrap_or(usize::MAX)
}

/// The node, out of `nodes`, that a hash belongs to; 0 where there are none.
///
/// The hash is mixed anew first. Were a node chosen by the same bits as a partition, each node would see only those
/// partitions whose numbers go with it, and the others would stay empty.
#[must_use]
pub fn node_of(hash: u64, nodes: usize) -> usize {
    // A multiplication instead of a remainder: even shares for any number of nodes (Lemire 2019, "Fast random integer
    // generation in an interval").
    let share = (u128::from(remixed(hash)) * nodes as u128) >> u64::BITS;
    usize::try_from(share).expect("a share of `nodes` is below `nodes`")
}

/// Every output bit depends on every input bit: the finalizer of SplitMix64 (Steele, Lea, Flood 2014; constants of
/// David Stafford's variant 13).
fn remixed(hash: u64) -> u64 {
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything on disk that names a partition rests on these numbers. The lengths take each path of the algorithm:
    /// none, 1 to 3, 4 to 8, 9 to 16, 17 to 128, 129 to 240, more. The numbers are the reference implementation's.
    #[test]
    fn the_hash_of_a_key_never_changes() {
        let counting: Vec<u8> = (0..=255).collect();
        let known: [(&[u8], u64); 9] = [
            (b"", 0x2d06_8005_38d3_94c2),
            (b"a", 0xe6c6_32b6_1e96_4e1f),
            (b"abc", 0x78af_5f94_892f_3950),
            (b"user/42", 0xd0c8_b567_05d1_a786),
            (b"session/0123", 0xf88a_e93d_5ad5_0d80),
            (b"tenant/7/user/42/cart", 0x4c49_40c9_5ce6_b47b),
            (&counting[..128], 0x85c6_174c_7ff4_c46b),
            (&counting[..200], 0xf42a_8864_feaf_0703),
            (&counting, 0x9408_a443_3b95_2d71),
        ];
        for (key, hash) in known {
            assert_eq!(route(key), hash, "{:#x} for {key:?}", route(key));
        }
    }

    #[test]
    fn the_partition_is_the_top_bits() {
        let hash = 0xa5c3_0000_0000_0001;
        assert_eq!(partition_of(hash, 0), 0);
        assert_eq!(partition_of(hash, 1), 1);
        assert_eq!(partition_of(hash, 4), 0xa);
        assert_eq!(partition_of(hash, 16), 0xa5c3);
        assert_eq!(partition_of(u64::MAX, 0), 0);
        for log2 in 0..32 {
            assert_eq!(
                partition_of(hash, log2 + 1) >> 1,
                partition_of(hash, log2),
                "split at {log2}"
            );
        }
        assert_eq!(partition_of(hash, 64), partition_of(hash, u32::MAX));
    }

    #[test]
    fn keys_spread_evenly_over_partitions() {
        let mut held = [0_u32; 64];
        for number in 0..64_000 {
            held[partition_of(route(format!("user/{number}").as_bytes()), 6)] += 1;
        }
        // 1000 each, with a standard deviation of 31.4: five of them either way.
        assert!(
            held.iter().all(|keys| (840..1160).contains(keys)),
            "{held:?}"
        );
    }

    /// Two nodes once took the lowest bit of the same number that chose the partition, so half of the partitions of
    /// each stayed empty.
    #[test]
    fn every_partition_is_used_on_every_node() {
        for nodes in [2_usize, 3, 4, 8] {
            let mut held = vec![[0_u32; 64]; nodes];
            for number in 0..64_000 {
                let hash = route(format!("user/{number}").as_bytes());
                held[node_of(hash, nodes)][partition_of(hash, 6)] += 1;
            }
            for (node, partitions) in held.iter().enumerate() {
                let keys: u32 = partitions.iter().sum();
                let fair = 64_000 / u32::try_from(nodes).expect("a few nodes");
                assert!(
                    keys.abs_diff(fair) < fair / 20,
                    "node {node} of {nodes} holds {keys}"
                );
                let sparse = partitions
                    .iter()
                    .filter(|&&keys| keys < fair / 64 / 2)
                    .count();
                assert_eq!(sparse, 0, "node {node} of {nodes}: {partitions:?}");
            }
        }
    }

    #[test]
    fn a_node_is_always_one_of_those_there_are() {
        for hash in [0, 1, u64::MAX, 1 << 63] {
            assert_eq!(node_of(hash, 0), 0);
            assert_eq!(node_of(hash, 1), 0);
            assert!(node_of(hash, 7) < 7);
            assert!(node_of(hash, usize::MAX) < usize::MAX);
        }
    }
}
