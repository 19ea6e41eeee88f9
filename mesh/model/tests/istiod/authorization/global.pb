
globalistio-system *



banned