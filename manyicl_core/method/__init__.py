"""The paper, as pure functions: tasks, encoding, sampling, sequences, objectives, plan.

He, Peng, Jiang, Go: *You Only Fine-tune Once: Many-Shot In-Context Fine-Tuning for Large
Language Models*, arXiv 2506.11103. Read in this order: ``tasks``, ``encoding``, ``sampling``,
``sequences``, ``objectives``, ``plan``; ``dataset`` reads users' files, ``task_building`` makes
tasks of them, ``leaks`` finds tested texts among the trained ones, ``labels`` holds closed label
sets for decoding. Nothing here imports torch.
"""
