//! Scores of defect maps.
