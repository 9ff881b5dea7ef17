//! Nesting: counted exactly, matched at every level, bounded, and never paid for with stack.

use inflightkv_validation::{JsonError, JsonErrorKind, Limits, check};

const LIMITS: Limits = Limits {
    depth_max: 128,
    bytes_max: 4 << 20,
};

fn refused(text: &[u8], limits: &Limits) -> JsonError {
    check(text, limits).expect_err("the text is refused")
}

fn nested(levels: usize, open: &str, close: &str) -> Vec<u8> {
    [open.repeat(levels), "0".to_owned(), close.repeat(levels)]
        .concat()
        .into_bytes()
}

/// A bit a level is kept in words of 64: each side of each border is tried, with both brackets.
#[test]
fn nesting_is_accepted_to_the_limit_and_refused_at_the_bracket_beyond() {
    for depth_max in [0, 1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 1000] {
        let limits = Limits {
            depth_max,
            ..LIMITS
        };
        let levels = depth_max as usize;
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let summary = check(&nested(levels, open, close), &limits).unwrap();
            assert_eq!(summary.depth, depth_max);
            let error = refused(&nested(levels + 1, open, close), &limits);
            assert_eq!(error.kind(), &JsonErrorKind::TooDeep { max: depth_max });
            assert_eq!(error.offset(), open.len() * levels);
            // The limit is on depth, not on brackets.
            if levels != 0 {
                let one = String::from_utf8(nested(levels - 1, open, close)).unwrap();
                let wide = format!("[{one},{one},{one}]");
                assert_eq!(check(wide.as_bytes(), &limits).unwrap().depth, depth_max);
            }
        }
    }
}

/// Objects and arrays in every pattern over three words of levels: a close that does not match
/// its open is found at whatever depth it is.
#[test]
fn brackets_match_at_every_depth() {
    let limits = Limits {
        depth_max: 200,
        ..LIMITS
    };
    for pattern in [
        0_u64,
        u64::MAX,
        0x5555_5555_5555_5555,
        0x8000_0000_0000_0001,
        0x0123_4567_89AB_CDEF,
    ] {
        let object =
            |level: usize| pattern.rotate_left(level as u32 / 64 * 7) >> (level % 64) & 1 == 1;
        let mut text = Vec::new();
        for level in 0..200 {
            text.extend_from_slice(if object(level) { b"{\"a\":" } else { b"[" });
        }
        text.push(b'0');
        let closes = text.len();
        text.extend(
            (0..200)
                .rev()
                .map(|level| if object(level) { b'}' } else { b']' }),
        );
        assert_eq!(check(&text, &limits).unwrap().depth, 200);
        for at in closes..text.len() {
            let mut wrong = text.clone();
            wrong[at] = if wrong[at] == b'}' { b']' } else { b'}' };
            assert_eq!(refused(&wrong, &limits).offset(), at);
        }
    }
}

/// A megabyte of brackets is refused at the first one too many, and no depth exhausts the stack.
#[test]
fn a_depth_bomb_costs_nothing() {
    for open in ["[", "{\"\":", "[{\"a\":", "[\n "] {
        let bomb = open.repeat((1 << 20) / open.len());
        let error = refused(bomb.as_bytes(), &LIMITS);
        assert_eq!(error.kind(), &JsonErrorKind::TooDeep { max: 128 });
        assert!(error.offset() < 129 * open.len());
    }
    let unlimited = Limits {
        depth_max: u32::MAX,
        ..LIMITS
    };
    let deep = nested(1 << 20, "[", "]");
    assert_eq!(check(&deep, &unlimited).unwrap().depth, 1 << 20);
    let open = refused(&deep[..1 << 20], &unlimited);
    assert_eq!(
        open.to_string(),
        "expected a value or `]`, found the end of the text at byte 1048576"
    );
}
