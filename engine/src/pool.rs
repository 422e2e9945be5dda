//! Aligned slots that one stage owns at a time.
