//! What the tests stand on: seeded datasets and the outside judges.
