//! Pair manifests and ground truth on disk.
