""".tflite files: reader, writer, graph representation and runtime support."""
