"""What an upsampler costs: parameters, operations, time and memory."""
