"""The sections of the report with pictures: predictions side by side, similarity maps, and the views of pre-training.

They are made from the files beside the results alone (`transfer.samples`, `transfer.frozen.samples`,
`pretrain.log.view_samples`); no data set is read.
"""
