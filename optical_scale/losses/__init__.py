"""Objectives over teacher and student token states."""
