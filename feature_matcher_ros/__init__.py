"""A real-time visual SLAM front-end: correspondences with stable track ids, and robust relative poses."""
