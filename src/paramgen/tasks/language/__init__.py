"""Language models of transformers: texts, instructions, and the tests of lm-eval."""
