"""What the study has found (docs/study.md): its tables, answers and figures, made from the results that `study/` keeps."""
